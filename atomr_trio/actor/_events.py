"""What happens in a system, told to whoever asked for it: nobody waits, nobody fails because somebody listens."""

import inspect
import logging
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from attrs import define, field, frozen

from ._errors import MailboxFull
from ._mailbox import DeadLetter, DeadLetters
from ._ref import ActorRef, cell_of

E = TypeVar("E")

__all__ = [
    "ActorEscalated",
    "ActorEvent",
    "ActorRestarted",
    "ActorStarted",
    "ActorTerminated",
    "EventStream",
    "Outbox",
    "Subscription",
]

log = logging.getLogger("atomr_trio.actor")

NESTED_EVENTS = 1000
"""How many events the callbacks of one publication may publish in turn: callbacks that feed each other must end."""


@frozen
class ActorEvent:
    """Base of the events in an actor's life; subscribe to it to get them all. ``path`` is the actor's."""

    path: str


@frozen
class ActorStarted(ActorEvent):
    """The actor's ``pre_start`` is through; ``incarnation`` 1 is the first life."""

    incarnation: int


@frozen
class ActorRestarted(ActorEvent):
    """The actor has ended with ``failure``, or a sibling has, and it begins a new incarnation."""

    failure: Exception


@frozen
class ActorEscalated(ActorEvent):
    """The actor is gone, and its supervisor fails with ``failure``: ``ChildEscalated`` or ``SupervisorGaveUp``."""

    failure: Exception


@frozen
class ActorTerminated(ActorEvent):
    """The actor is gone for good, for ``reason``. ``failure`` is set when it did not stop on request."""

    reason: str
    failure: Exception | None = None


class Subscription:
    """A standing order for events; ``close`` it, leave its ``with`` block, or let the subscribed actor end."""

    __slots__ = ("_call", "_forget", "_is_open", "_ref", "_unhook")

    def __init__(
        self, target: ActorRef[Any] | Callable[[Any], object], forget: "Callable[[Subscription], None]"
    ) -> None:
        if inspect.iscoroutinefunction(target):
            raise TypeError("a subscriber is an actor or a plain function; nobody would await a coroutine")
        self._ref: ActorRef[Any] | None = target if isinstance(target, ActorRef) else None
        self._call: Callable[[Any], object] | None = None if isinstance(target, ActorRef) else target
        self._forget = forget
        self._is_open = True
        self._unhook: Callable[[], None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether events still arrive."""
        return self._is_open

    def close(self) -> None:
        """End it; nothing is delivered from now on. Does nothing the second time."""
        if self._is_open:
            self._is_open = False
            self._forget(self)
            if self._unhook is not None:
                self._unhook()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def follow(self) -> None:
        """Have it closed when its actor ends."""
        if self._ref is not None:
            self._unhook = cell_of(self._ref).on_terminated_call(self.close)

    def deliver(self, event: object, dead_letters: DeadLetters) -> None:
        """Hand one event over; never raises, never waits."""
        if self._is_open and self._ref is not None:
            _tell(self._ref, event, dead_letters)
        elif self._is_open and self._call is not None:
            self._invoke(self._call, event)

    def _invoke(self, call: Callable[[Any], object], event: object) -> None:
        try:
            call(event)
        except Exception:
            log.exception("a subscriber of %s failed and is unsubscribed", type(event).__name__)
            self.close()


def _tell(ref: ActorRef[Any], event: object, dead_letters: DeadLetters) -> None:
    # Telling an actor of its own lost mail would lose that news in the same mailbox.
    if isinstance(event, DeadLetter) and event.path == ref.path:
        return
    try:
        ref.tell(event)
    except MailboxFull:
        dead_letters.record(DeadLetter(ref.path, event, "the subscriber's mailbox is full"))


@define
class Outbox:
    """Delivers events one after the other, so that all subscribers see them in the same order.

    What a callback publishes while it is being told waits for its turn.
    """

    _dead_letters: DeadLetters
    dropped: int = field(default=0, init=False)
    _waiting: deque[tuple[object, tuple[Subscription, ...]]] = field(
        factory=deque[tuple[object, tuple[Subscription, ...]]], init=False
    )
    _nested: int | None = field(default=None, init=False)

    def post(self, event: object, subscriptions: tuple[Subscription, ...]) -> None:
        """Deliver the event now, or after the one being delivered."""
        if self._nested is not None:
            self._nested += 1
            if self._nested > NESTED_EVENTS:
                self._drop(event)
                return
        self._waiting.append((event, subscriptions))
        if self._nested is None:
            self._drain()

    def _drain(self) -> None:
        self._nested = 0
        try:
            while self._waiting:
                event, subscriptions = self._waiting.popleft()
                for subscription in subscriptions:
                    subscription.deliver(event, self._dead_letters)
        finally:
            self._nested = None

    def _drop(self, event: object) -> None:
        self.dropped += 1
        if self._nested == NESTED_EVENTS + 1:
            log.error("subscribers publish in a circle; %s and what follows is dropped", type(event).__name__)


class EventStream:
    """Typed publish and subscribe within one system.

    The core publishes ``DeadLetter`` and the ``ActorEvent`` classes; applications publish what they like.
    """

    def __init__(self, dead_letters: DeadLetters) -> None:
        self._outbox = Outbox(dead_letters)
        self._by_type: dict[type, dict[Subscription, None]] = {}

    @property
    def dropped(self) -> int:
        """How many events were dropped because callbacks published in a circle."""
        return self._outbox.dropped

    def subscribe(self, event_type: type[E], target: ActorRef[E] | Callable[[E], object]) -> Subscription:
        """Deliver every event of this class, or of one derived from it, to an actor or to a function.

        An actor is told; if its mailbox is full, the event becomes a dead letter. A function is called by the
        publisher and must not block; if it raises, that is logged and it is unsubscribed. An actor's own dead letters
        are not told to it. The subscription ends with its actor.

        Raises:
            TypeError: the target is a coroutine function.
        """
        subscription = Subscription(target, lambda closed: self._forget(event_type, closed))
        self._by_type.setdefault(event_type, {})[subscription] = None
        subscription.follow()
        return subscription

    def publish(self, event: object) -> None:
        """Deliver an event to its subscribers, class by class, in order of subscription. Never raises or waits."""
        found = [self._by_type[kind] for kind in type(event).__mro__ if kind in self._by_type]
        if found:
            self._outbox.post(event, tuple(subscription for group in found for subscription in group))

    def _forget(self, event_type: type, subscription: Subscription) -> None:
        group = self._by_type[event_type]
        del group[subscription]
        if not group:
            del self._by_type[event_type]
