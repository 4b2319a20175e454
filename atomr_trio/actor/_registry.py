"""Finding actors: by the service they offer, wherever they stand in the tree."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from attrs import define, field, frozen

from ._events import Outbox, Subscription
from ._mailbox import DeadLetters
from ._ref import ActorRef, cell_of

M = TypeVar("M")

__all__ = ["Listing", "Registry", "ServiceKey"]


@frozen
class ServiceKey(Generic[M]):
    """The name of a service, with the type of the messages that those who offer it take.

    Keys with one ``id`` are the same key; declare each once, as a constant. The idea is that of Akka's receptionist.
    """

    id: str


@frozen
class Listing(Generic[M]):
    """Who offers the service of ``key``: ``refs``, in the order of their registration."""

    key: ServiceKey[M]
    refs: tuple[ActorRef[M], ...]


@define
class _Service:
    """One key's entries, each with the way to undo its death watch, and those who want to know."""

    undo: dict[ActorRef[Any], Callable[[], None]] = field(factory=dict[ActorRef[Any], Callable[[], None]])
    subscriptions: dict[Subscription, None] = field(factory=dict[Subscription, None])


class Registry:
    """The receptionist of a system. An actor that is gone for good vanishes by itself; one that restarts stays."""

    def __init__(self, dead_letters: DeadLetters) -> None:
        self._outbox = Outbox(dead_letters)
        self._services: dict[ServiceKey[Any], _Service] = {}

    def register(self, key: ServiceKey[M], ref: ActorRef[M]) -> None:
        """Enter an actor under a key. Does nothing if it is there already, or is gone for good."""
        if ref.is_terminated or ref in self._service(key).undo:
            return
        # Before the subscribers hear of it: one of them may end it or take it out again at once.
        self._service(key).undo[ref] = cell_of(ref).on_terminated_call(lambda: self.deregister(key, ref))
        self._announce(key)

    def deregister(self, key: ServiceKey[M], ref: ActorRef[M]) -> None:
        """Take an actor out. Does nothing if it is not there."""
        service = self._services.get(key)
        undo = service.undo.pop(ref, None) if service is not None else None
        if undo is not None:
            undo()
            self._announce(key)
            self._tidy(key)

    def find(self, key: ServiceKey[M]) -> tuple[ActorRef[M], ...]:
        """Return who offers the service now, in the order of their registration."""
        service = self._services.get(key)
        return tuple(service.undo) if service is not None else ()

    def subscribe(
        self, key: ServiceKey[M], target: ActorRef[Listing[M]] | Callable[[Listing[M]], object]
    ) -> Subscription:
        """Deliver a ``Listing`` at once, and again whenever it changes, to an actor or to a function.

        The terms are those of ``EventStream.subscribe``.

        Raises:
            TypeError: the target is a coroutine function.
        """
        subscription = Subscription(target, lambda closed: self._forget(key, closed))
        self._service(key).subscriptions[subscription] = None
        subscription.follow()
        self._outbox.post(Listing(key, self.find(key)), (subscription,))
        return subscription

    def _service(self, key: ServiceKey[Any]) -> _Service:
        return self._services.setdefault(key, _Service())

    def _announce(self, key: ServiceKey[Any]) -> None:
        subscriptions = tuple(self._service(key).subscriptions)
        if subscriptions:
            self._outbox.post(Listing(key, self.find(key)), subscriptions)

    def _forget(self, key: ServiceKey[Any], subscription: Subscription) -> None:
        del self._service(key).subscriptions[subscription]
        self._tidy(key)

    def _tidy(self, key: ServiceKey[Any]) -> None:
        service = self._services.get(key)
        if service is not None and not service.undo and not service.subscriptions:
            del self._services[key]
