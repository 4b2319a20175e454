"""Carries planned faults out, in the device process: what a test or a benchmark asked for, and nobody else."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Mapping

from attrs import define, field

from .connection import Connection
from .fault_plan import DeviceFaultKind, PlannedFault
from .frames import Step, encode

__all__ = ["Injector"]

_TORN = 1
_ON_DISPATCH: frozenset[DeviceFaultKind] = frozenset({"kill", "freeze", "hang", "poison", "oom", "slow", "bug"})
# As XLA words them: the engine is to make of them what it makes of real ones.
_ERRORS: Mapping[DeviceFaultKind, Callable[[], Exception]] = {
    "poison": lambda: RuntimeError("INTERNAL: CUDA_ERROR_ILLEGAL_ADDRESS (injected)"),
    "oom": lambda: RuntimeError("RESOURCE_EXHAUSTED: Out of memory (injected)"),
    "bug": lambda: ValueError("injected"),
}


@define
class Injector:
    """Lets each fault happen once.

    Args:
        faults: of this process.
    """

    _faults: list[PlannedFault] = field(converter=list[PlannedFault])
    _dispatched: int = field(init=False, default=0)
    _sent: int = field(init=False, default=0)

    def on_dispatch(self) -> None:
        """Call it before a step is dispatched, where what the device raises is caught.

        Raises:
            Exception: like one of the device's.
        """
        self._dispatched += 1
        for fault in self._due(self._dispatched, on_dispatch=True):
            _happen(fault)

    def send(self, connection: Connection, frame: Step) -> None:
        """Send a step's frame, or what is left of it."""
        self._sent += 1
        kinds = [fault.kind for fault in self._due(self._sent, on_dispatch=False)]
        data = encode(frame)
        if "torn" in kinds:
            connection.send_bytes(data[: len(data) // 2])
            os._exit(_TORN)
        if "garbage" in kinds:
            connection.send_bytes(b"\xff" * 64)
        connection.send_bytes(data * (2 if "duplicate" in kinds else 1))

    def _due(self, step: int, *, on_dispatch: bool) -> Iterable[PlannedFault]:
        due = [fault for fault in self._faults if fault.step == step and (fault.kind in _ON_DISPATCH) == on_dispatch]
        self._faults = [fault for fault in self._faults if fault not in due]
        return due


def _happen(fault: PlannedFault) -> None:
    match fault.kind:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "freeze":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "hang":
            threading.Event().wait()
        case "slow":
            threading.Event().wait(fault.seconds)
        case kind:
            raise _ERRORS[kind]()
