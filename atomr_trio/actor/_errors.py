"""What can go wrong between actors."""

from attrs import define

__all__ = [
    "ActorError",
    "ActorFailed",
    "ActorStopped",
    "AskTimeout",
    "ChildEscalated",
    "MailboxFull",
    "NameTaken",
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
class MailboxFull(ActorError):
    """The actor's mailbox holds ``capacity`` messages and its policy is ``fail``."""

    capacity: int

    def __str__(self) -> str:
        return f"the mailbox of {self.path} is full ({self.capacity} messages)"


@define
class NameTaken(ActorError):
    """A living sibling has this name."""

    def __str__(self) -> str:
        return f"{self.path} exists already"


@define
class ChildEscalated(ActorError):
    """A child's failure that the supervisor chose not to handle. The failure is the ``__cause__``."""

    def __str__(self) -> str:
        return f"{self.path} escalated: {self.__cause__!r}"


@define
class SupervisorGaveUp(ActorError):
    """A child of ``path`` would have been restarted more than ``max_restarts`` times ``within`` seconds.

    The child's last failure is the ``__cause__``.
    """

    child: str
    max_restarts: int
    within: float

    def __str__(self) -> str:
        return (
            f"{self.path} gave up on {self.child}: more than {self.max_restarts} restarts within {self.within:g}s; "
            f"the last failure was {self.__cause__!r}"
        )
