"""What users write: an actor, and the recipe to build it."""

import enum
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from attrs import field, frozen, validators

from ._dispatch import dispatch, handlers_of
from ._supervision import Restart, SupervisorStrategy

if TYPE_CHECKING:
    from ._context import Context
    from ._signals import Terminated

M = TypeVar("M")

__all__ = ["Actor", "ChildSpec", "OverflowStrategy", "Props"]


class Actor(Generic[M]):
    """State that only its own handler touches.

    Subclasses implement ``handle``, or mark a method for each type of message with ``@on``. One message is handled at
    a time. What a handler returns answers an ``ask``. An exception out of any method but the closing hooks is a
    failure, and the parent's ``supervisor_strategy`` decides.
    """

    supervisor_strategy: SupervisorStrategy = SupervisorStrategy()
    """How this actor supervises its children."""

    _handlers: ClassVar[Mapping[type, str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._handlers = handlers_of(cls, cls._handlers)

    def handle(self, message: M, ctx: "Context[M]") -> Any:
        """Handle one message, in an ``async def`` or in a plain function. This one calls the method marked ``@on``.

        Raises:
            TypeError: there is no method for this type of message.
        """
        return dispatch(self._handlers, self, message, ctx)

    async def pre_start(self, ctx: "Context[M]") -> None:
        """Run before the first message of each incarnation. May spawn children and tasks."""

    async def post_stop(self, ctx: "Context[M]") -> None:
        """Run when the actor has stopped, after its children and tasks. Shielded, with the shutdown deadline."""

    async def on_failure(self, failure: Exception, ctx: "Context[M]") -> None:
        """Run on an instance that ends by a failure, after its children and tasks. Shielded like post_stop."""

    async def pre_restart(self, failure: Exception, ctx: "Context[M]") -> None:
        """Run on the old instance, after its children and tasks, before the new one. Shielded like post_stop.

        With a group strategy the failure may be a sibling's.
        """

    async def post_restart(self, failure: Exception, ctx: "Context[M]") -> None:
        """Run on the new instance after a restart, after its ``pre_start`` and before its first message."""

    async def on_terminated(self, terminated: "Terminated", ctx: "Context[M]") -> None:
        """A watched actor is gone."""


class OverflowStrategy(enum.Enum):
    """What ``tell`` does when the mailbox is full."""

    FAIL = "fail"
    """Raise ``MailboxFull``."""
    DROP_NEW = "drop_new"
    """Lose the message that is being told."""
    DROP_HEAD = "drop_head"
    """Lose the oldest one in the mailbox. Senders that wait for room come first: then the new one is lost."""


@frozen(kw_only=True)
class Props(Generic[M]):
    """The recipe of an actor; it is called anew for each incarnation.

    Args:
        factory: returns a new instance.
        capacity: messages the mailbox holds.
        overflow: what ``tell`` does when it is full; whatever is dropped becomes a dead letter.
        stash_capacity: messages that may be put aside.
        keep_stash: the stash survives a restart; otherwise what is in it becomes dead letters.
        shutdown: seconds that the message in hand gets to finish after a stop, and again that ``post_stop`` gets.
    """

    factory: Callable[[], Actor[M]]
    capacity: int = field(default=1024, validator=validators.ge(1))
    overflow: OverflowStrategy = field(default=OverflowStrategy.FAIL, converter=OverflowStrategy)
    stash_capacity: int = field(default=256, validator=validators.ge(0))
    keep_stash: bool = False
    shutdown: float = field(default=5.0, validator=validators.ge(0.0))


@frozen(kw_only=True)
class ChildSpec(Generic[M]):
    """A child as its supervisor knows it.

    Args:
        id: its name.
        props: its recipe.
        restart: when it is started again.
        shutdown: seconds as in its props, for this child: 0 cuts the message in hand off, infinity waits for it.
        significant: its end counts for the supervisor's ``auto_shutdown``.
    """

    id: str = field(validator=[validators.min_len(1), validators.matches_re("[^/]+")])
    props: Props[M]
    restart: Restart = Restart.TRANSIENT
    shutdown: float | None = field(default=None, validator=validators.optional(validators.ge(0.0)))
    significant: bool = False
