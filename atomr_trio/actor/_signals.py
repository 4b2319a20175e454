"""System messages: they overtake every user message and are never dropped."""

from typing import TYPE_CHECKING, Any

from attrs import frozen

from ._timers import TimerFired
from ._verdict import Verdict

if TYPE_CHECKING:
    from ._ref import ActorRef

__all__ = ["Escalated", "ReceiveTimeout", "Regroup", "Signal", "Stop", "TaskFailed", "Terminated"]


@frozen
class Stop:
    """Stop after the message in hand. ``by_itself``: the actor's own wish, which a permanent child is not granted."""

    reason: str
    by_itself: bool = False


@frozen
class Regroup:
    """End this incarnation on a sibling's account: the verdict says what follows."""

    verdict: Verdict


@frozen
class ReceiveTimeout:
    """Given to the handler when nothing has come for the receive timeout."""


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
    """The watched actor ``ref`` is gone, for ``reason``, and its name is free: OTP's ``DOWN``, Akka's ``Terminated``.

    ``failure`` is set when it did not stop on request.
    """

    ref: "ActorRef[Any]"
    reason: str
    failure: Exception | None = None


Signal = Stop | Regroup | TimerFired | TaskFailed | Escalated | Terminated
