"""One question's answer: resolved exactly once, whoever comes first."""

from typing import Any, Generic, TypeVar, cast

import outcome
import trio

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
    """

    __slots__ = ("_abandoned", "_event", "_outcome", "deadline")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self._event = trio.Event()
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
            self._event.set()

    async def wait(self) -> R:
        """Wait for the answer and return or raise it."""
        await self._event.wait()
        return cast("R", cast("Any", self._outcome).unwrap())


class Ask:
    """An envelope in a mailbox: a message whose sender waits for the answer."""

    __slots__ = ("message", "slot")

    def __init__(self, message: Any, slot: ReplySlot[Any]) -> None:
        self.message = message
        self.slot = slot
