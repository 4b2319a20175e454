"""A device process that stands by, so that the next one does not begin with nothing when one dies."""

import logging
from collections.abc import Callable
from typing import Literal

import msgspec
import trio
from attrs import define, field

from atomr_trio.core import InferenceError
from atomr_trio.engine.frames import Activate, Configure, Ready
from atomr_trio.engine.settings import EngineSettings

from ._child import describe_exit
from ._link import DeviceLink

__all__ = ["Spare", "SpareChoice", "standing_by"]

SpareChoice = Literal["auto", "none", "imported", "loaded"]
"""How far a process that stands by goes ahead; ``auto`` depends on the device."""

log: logging.Logger = logging.getLogger("atomr_trio.runners")

MAX_DEATHS = 3
"""A process that dies so often before it was needed is not started again: something is wrong with all of them."""


def standing_by(settings: EngineSettings, asked: SpareChoice, serving: Ready | None) -> Configure:
    """Return what to tell a spare process.

    Args:
        settings: of the engine.
        asked: how far it is to go; ``auto`` depends on the device.
        serving: how the process is set up that it stands by for: it is to be the same, though less memory is free.
    """
    if serving is not None:
        tokens = serving.num_pages * serving.page_size
        settings = msgspec.structs.replace(settings, kv_tokens=tokens, max_model_len=serving.max_model_len)
    on_cpu = serving is not None and serving.backend == "cpu"
    auto = "loaded" if on_cpu else "imported"
    return Configure(settings, standby=auto if asked == "auto" else asked)


@define(eq=False)
class Spare:
    """Keeps one process standing by from the first ``want`` on, and hands it over to who takes it.

    Args:
        spawn: starts a process that stands by.
    """

    _spawn: Callable[[], DeviceLink]
    _link: DeviceLink | None = field(init=False, default=None)
    _watching: trio.CancelScope | None = field(init=False, default=None)
    _wanted: trio.Event = field(init=False, factory=trio.Event)
    _deaths: int = field(init=False, default=0)

    @property
    def pid(self) -> int | None:
        """The process id of the one that stands by, if there is one."""
        return None if self._link is None else self._link.process.pid

    def want(self) -> None:
        """See to it that one stands by, soon; `run` does the work."""
        self._wanted.set()

    def take(self, word: Activate) -> DeviceLink | None:
        """Return the process that stands by, however far it is, told to go on; ``None``: there is none.

        Args:
            word: what it is told.
        """
        link = self._link
        # What may have ended one process may have ended both, and nobody has noticed yet.
        if link is None or link.process.has_exited:
            return None
        self._link, self._deaths = None, 0
        if self._watching is not None:
            self._watching.cancel(reason="the spare process is needed")
        link.post(word)
        return link

    async def run(self) -> None:
        """Start processes when they are wanted, until cancelled; the last one ends with it."""
        while self._deaths < MAX_DEATHS:
            await self._wanted.wait()
            self._wanted = trio.Event()
            try:
                await self._stand_by(self._spawn())
            except InferenceError:
                log.exception("no spare device process")
                return

    async def _stand_by(self, link: DeviceLink) -> None:
        self._link = link
        try:
            with trio.CancelScope() as self._watching:
                status = await link.process.wait()
                self._deaths += 1
                self._wanted.set()
                log.warning("the spare device process %s", describe_exit(status))
        finally:
            self._watching = None
            # Whoever took it has to end it.
            if self._link is link:
                self._link = None
                with trio.CancelScope(shield=True):
                    await link.close()
