"""One question's answer: resolved exactly once, whoever comes first."""

from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import outcome
import trio

from ._metadata import Envelope

if TYPE_CHECKING:
    from ._cell import Cell

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

__all__ = ["Ask", "ReplySlot", "Request"]


class Request(Generic[R_co]):
    """Base of messages that expect an answer of type ``R``; lets ``ask`` return it typed."""

    __slots__ = ()


class ReplySlot(Generic[R]):
    """Where the answer goes. The asker waits on it, the callee resolves it; the first resolution wins.

    Args:
        deadline: when the asker stops waiting, on Trio's clock in seconds.
        asker: the actor whose own task waits; ``None`` for any other task.
    """

    __slots__ = ("_abandoned", "_outcome", "_waiter", "asker", "deadline")

    def __init__(self, deadline: float, asker: "Cell[Any] | None" = None) -> None:
        self.deadline: float = deadline
        self.asker: Cell[Any] | None = asker
        self._waiter: trio.lowlevel.Task | None = None
        self._outcome: outcome.Value[R] | outcome.Error | None = None
        self._abandoned = False

    @property
    def is_resolved(self) -> bool:
        """Whether an answer or an error is there."""
        return self._outcome is not None

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits any more: the asker timed out or was cancelled."""
        return self._abandoned

    @property
    def is_open(self) -> bool:
        """Whether somebody still waits for the answer."""
        return self._outcome is None and not self._abandoned

    def resolve(self, value: R) -> None:
        """Answer. Does nothing if the slot is resolved already."""
        self._settle(outcome.Value(value))

    def fail(self, error: Exception) -> None:
        """Answer with an error, raised at the asker. Does nothing if the slot is resolved already."""
        self._settle(outcome.Error(error))

    def abandon(self) -> None:
        """Say that nobody waits any more."""
        self._abandoned = True

    def _settle(self, result: "outcome.Value[R] | outcome.Error") -> None:
        if self._outcome is None:
            self._outcome = result
            waiter, self._waiter = self._waiter, None
            if waiter is not None:
                trio.lowlevel.reschedule(waiter)

    async def wait(self) -> R:
        """Wait for the answer and return or raise it. One task may wait."""
        if self._outcome is not None:
            await trio.lowlevel.checkpoint()
        else:
            # As an event does it, for one waiter, without the event.
            self._waiter = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._give_up)
        return cast("R", cast("Any", self._outcome).unwrap())

    def _give_up(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._waiter = None
        return trio.lowlevel.Abort.SUCCEEDED


class Ask(Envelope):
    """An envelope in a mailbox: a message whose sender waits for the answer."""

    __slots__ = ("slot",)

    def __init__(self, message: Any, slot: ReplySlot[Any]) -> None:
        super().__init__(message)
        self.slot = slot

    def refuse(self, error: Exception) -> None:
        """Answer with the error."""
        self.slot.fail(error)
