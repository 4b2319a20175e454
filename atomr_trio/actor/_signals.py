"""System messages: they overtake every user message and are never dropped."""

from typing import TYPE_CHECKING, Any

from attrs import frozen

if TYPE_CHECKING:
    from ._ref import ActorRef

__all__ = ["Escalated", "Signal", "Stop", "TaskFailed", "Terminated"]


@frozen
class Stop:
    """Stop after the message in hand."""

    reason: str


@frozen
class TaskFailed:
    """A background task of this incarnation raised."""

    failure: Exception


@frozen
class Escalated:
    """A child's failure became this actor's own."""

    failure: Exception


@frozen
class Terminated:
    """The watched actor ``ref`` is gone and its name is free. ``failure`` is set when it did not stop on request."""

    ref: "ActorRef[Any]"
    reason: str
    failure: Exception | None = None


Signal = Stop | TaskFailed | Escalated | Terminated
