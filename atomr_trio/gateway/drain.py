"""The state of a server that ends in order: whether it still takes requests, and how many it still has."""

import trio
from attrs import define, field

from atomr_trio.core import Backpressure

__all__ = ["Drain"]

RETRY = 1.0
"""Seconds after which a refused client may try again: another server, or this one's successor."""


@define(eq=False)
class Drain:
    """Shared by the application, which counts and refuses, and by the server, which waits.

    Args:
        draining: no new request is taken.
        open: requests that were taken and have not ended.
    """

    draining: bool = field(init=False, default=False)
    open: int = field(init=False, default=0)
    _changed: trio.Event = field(init=False, factory=trio.Event)

    def begin(self) -> None:
        """Take no new requests from now on."""
        self.draining = True
        self._wake()

    def check(self) -> None:
        """Take a request, or not.

        Raises:
            Backpressure: the server stops.
        """
        if self.draining:
            raise Backpressure("the server is stopping", RETRY)

    def enter(self) -> bool:
        """Count a request, unless it comes too late to be waited for; ``leave`` if it was counted."""
        self.open += not self.draining
        return not self.draining

    def leave(self) -> None:
        """Count its end."""
        self.open -= 1
        self._wake()

    async def wait_idle(self) -> None:
        """Wait until no request is open."""
        while self.open:
            await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
