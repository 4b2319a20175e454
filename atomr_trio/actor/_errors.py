"""What can go wrong between actors."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import define, frozen

if TYPE_CHECKING:
    from ._ref import ActorRef

__all__ = [
    "ActorError",
    "ActorFailed",
    "ActorStopped",
    "AskCycle",
    "AskTimeout",
    "ChildEscalated",
    "DeathPact",
    "MailboxFull",
    "NameTaken",
    "NoRoutees",
    "PartialFailure",
    "RestartRecord",
    "ShutdownUnderWay",
    "StashFull",
    "SupervisorGaveUp",
]


@define
class ActorError(Exception):
    """Base of the actor core's errors. ``path`` is the actor they are about."""

    path: str


@define
class ActorStopped(ActorError):
    """The actor is not there: it stopped before it could answer, or it never ran."""

    def __str__(self) -> str:
        return f"{self.path} is stopped"


@define
class ActorFailed(ActorError):
    """The actor's handler, or its start, raised. The exception is the ``__cause__``."""

    def __str__(self) -> str:
        return f"{self.path} failed: {self.__cause__!r}"


@define
class AskTimeout(ActorError):
    """No answer within ``seconds``."""

    seconds: float

    def __str__(self) -> str:
        return f"{self.path} did not answer within {self.seconds:g}s"


@define
class AskCycle(ActorError):
    """The asked actor waits, over the others of ``chain``, for the asker's own answer: nobody could go on."""

    chain: tuple[str, ...]

    def __str__(self) -> str:
        return f"asking {self.path} would wait forever: {' asks '.join(self.chain)}"


@define
class MailboxFull(ActorError):
    """The actor's mailbox holds ``capacity`` messages and its policy is ``fail``."""

    capacity: int

    def __str__(self) -> str:
        return f"the mailbox of {self.path} is full ({self.capacity} messages)"


@define
class StashFull(ActorError):
    """The actor has put ``capacity`` messages aside already."""

    capacity: int

    def __str__(self) -> str:
        return f"the stash of {self.path} is full ({self.capacity} messages)"


@define
class NameTaken(ActorError):
    """A living sibling has this name."""

    def __str__(self) -> str:
        return f"{self.path} exists already"


@define
class ChildEscalated(ActorError):
    """A child's failure that the supervisor chose not to handle. The failure is the ``__cause__``."""

    def __str__(self) -> str:
        innermost = self.__cause__
        while isinstance(innermost, ChildEscalated):
            innermost = innermost.__cause__
        return f"{self.path} escalated: {innermost!r}"


@define
class DeathPact(ActorError):
    """The actor at ``path`` was bound by a death pact to the one at ``partner``, which is gone.

    ``reason`` says why it is; its failure, if it had one, is the ``__cause__``.
    """

    partner: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path} does not live on without {self.partner}: {self.reason}"


@frozen
class RestartRecord:
    """One restart that a supervisor has granted.

    Args:
        at: when, on Trio's clock in seconds.
        child: the path of the child that is restarted.
        failure: the ``repr`` of what it failed with.
    """

    at: float
    child: str
    failure: str


@define
class SupervisorGaveUp(ActorError):
    """A child of ``path`` would have been restarted more than ``max_restarts`` times ``within`` seconds.

    The child's last failure is the ``__cause__``; ``history`` are the restarts in the window, oldest first.
    """

    child: str
    max_restarts: int
    within: float
    history: tuple[RestartRecord, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.path} gave up on {self.child}: more than {self.max_restarts} restarts within {self.within:g}s; "
            f"the last failure was {self.__cause__!r}"
        )


@define
class NoRoutees(ActorError):
    """A router has nobody left to route to. ``path`` is the router's name, or the pool's path."""

    def __str__(self) -> str:
        return f"{self.path} has no routees"


@define
class PartialFailure(ActorError):
    """A broadcast did not reach, or was not answered by, all routees.

    Args:
        answers: what came in from whom; for a ``tell``, ``None`` from everyone who got it.
        failures: what went wrong with whom; never empty.
    """

    answers: "Mapping[ActorRef[Any], Any]"
    failures: "Mapping[ActorRef[Any], Exception]"

    def __str__(self) -> str:
        total = len(self.answers) + len(self.failures)
        failed = ", ".join(routee.path for routee in self.failures)
        return f"{len(self.failures)} of {total} routees of {self.path} failed: {failed}"


@define
class ShutdownUnderWay(ActorError):
    """A task came too late for its phase of the shutdown. ``path`` is the system's name."""

    phase: str

    def __str__(self) -> str:
        return f"{self.path} is shutting down and its phase {self.phase} has begun"
