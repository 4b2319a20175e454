"""How long a connection may be idle."""

import math

import trio
from attrs import define, field
from hypercorn.typing import Event

__all__ = ["IdleTimer"]


@define(eq=False)
class IdleTimer:
    """Runs while a connection is idle. One task for the whole connection: each request only moves its deadline.

    Args:
        timeout: seconds that the connection may be idle.
        terminated: the server shuts down: what is idle then has no time left.
    """

    _timeout: float
    _terminated: Event
    _idle: bool = field(init=False, default=False)
    _stopped: bool = field(init=False, default=False)
    _scope: trio.CancelScope = field(init=False, factory=trio.CancelScope)

    async def wait(self) -> bool:
        """Return True when the connection was idle for too long, False after `stop`."""
        while not self._stopped:
            with self._scope:
                await self._terminated.wait()
                self._timeout = 0.0
                self._count()
                await trio.sleep_forever()
            if self._idle and not self._stopped:
                return True
            # A request came in the moment in which the time was over.
            self._scope = trio.CancelScope()
        return False

    def turn(self, *, idle: bool) -> None:
        """Say whether the connection is idle now. Who is idle already goes on to be so: nothing begins anew."""
        if idle != self._idle:
            self._idle = idle
            self._count()

    def _count(self) -> None:
        self._scope.deadline = trio.current_time() + self._timeout if self._idle else math.inf

    def stop(self) -> None:
        """End the wait: the connection has ended."""
        self._stopped = True
        self._scope.cancel(reason="the connection has ended")
