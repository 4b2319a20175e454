"""Routers: one face for many actors. A strategy picks the routee; the router skips the dead."""

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

import trio
from attrs import field, frozen

from ._errors import AskTimeout, MailboxFull, NoRoutees, PartialFailure
from ._ref import ActorRef, cell_of
from ._reply import Ask, ReplySlot, Request
from ._routing import ConsistentHash, HashKey, LeastLoaded, RoundRobin, RoutingStrategy

M = TypeVar("M")
R = TypeVar("R")

__all__ = ["Broadcast", "Router", "broadcast", "consistent_hash", "least_loaded", "round_robin"]


class _Routees(Generic[M]):
    """The living routees, in the order in which they came. Each is in once."""

    def __init__(self, routees: Iterable[ActorRef[M]], name: str) -> None:
        self.name = name
        self._routees = tuple(dict.fromkeys(routees))

    @property
    def routees(self) -> tuple[ActorRef[M], ...]:
        """Who is routed to; those that are gone for good are left out."""
        # The same tuple as long as nothing changes: strategies compare it with what they prepared for.
        if any(routee.is_terminated for routee in self._routees):
            self._routees = tuple(routee for routee in self._routees if not routee.is_terminated)
        return self._routees

    def add(self, routee: ActorRef[M]) -> None:
        """Route to this one too."""
        self.replace((*self._routees, routee))

    def remove(self, routee: ActorRef[M]) -> None:
        """Route to this one no more. It is not stopped."""
        self.replace(kept for kept in self._routees if kept != routee)

    def replace(self, routees: Iterable[ActorRef[M]]) -> None:
        """Route to these from now on, for instance to the ``refs`` of each ``Listing`` of a service."""
        self._routees = tuple(dict.fromkeys(routees))

    def _present(self) -> tuple[ActorRef[M], ...]:
        routees = self.routees
        if not routees:
            raise NoRoutees(self.name)
        return routees


class Router(_Routees[M]):
    """Sends each message to the routee that its strategy picks. Make one with a function such as ``round_robin``.

    All methods raise ``NoRoutees`` when nobody is left. Nothing is sent twice: a routee that dies with a message fails
    the ask.
    """

    def __init__(self, strategy: RoutingStrategy, routees: Iterable[ActorRef[M]] = (), *, name: str = "router") -> None:
        super().__init__(routees, name)
        self._strategy = strategy

    def pick(self, message: M) -> ActorRef[M]:
        """Return the routee whose turn it is, and count that as its turn."""
        return self._strategy.pick(message, self._present())

    def tell(self, message: M) -> None:
        """Do ``ActorRef.tell`` with a routee."""
        self.pick(message).tell(message)

    async def send(self, message: M) -> None:
        """Do ``ActorRef.send`` with a routee; the wait is for room at the one that was picked."""
        await self.pick(message).send(message)

    async def ask(self, message: Request[R], *, timeout: float) -> R:
        """Do ``ActorRef.ask`` with a routee."""
        return await self._strategy.pick(message, self._present()).ask(message, timeout=timeout)


class Broadcast(_Routees[M]):
    """Sends each message to all routees.

    All methods raise ``NoRoutees`` when nobody is left, and ``PartialFailure`` when some could not take the message:
    the others have got it then.
    """

    def tell(self, message: M) -> None:
        """Do ``ActorRef.tell`` with every routee."""
        failures: dict[ActorRef[M], Exception] = {}
        routees = self._present()
        for routee in routees:
            try:
                routee.tell(message)
            except MailboxFull as full:
                failures[routee] = full
        if failures:
            reached = {routee: None for routee in routees if routee not in failures}
            raise PartialFailure(self.name, reached, failures)

    async def send(self, message: M) -> None:
        """Do ``ActorRef.send`` with every routee at once; returns when the last had room."""
        routees = self._present()
        async with trio.open_nursery() as nursery:
            for routee in routees:
                nursery.start_soon(routee.send, message, name=f"{self.name} to {routee.path}")

    async def ask(self, message: Request[R], *, timeout: float) -> tuple[R, ...]:
        """Ask every routee at once, with one deadline, and return the answers in the order of ``routees``.

        Args:
            message: the question.
            timeout: seconds to wait for all together.

        Raises:
            NoRoutees: there is nobody to ask.
            PartialFailure: some did not answer; it holds the answers of the others.
        """
        gathering = _Gathering(message, self._present(), timeout)
        await gathering.wait()
        if gathering.failures:
            raise PartialFailure(self.name, gathering.answers, gathering.failures)
        return tuple(gathering.answers.values())


@frozen
class _Gathering(Generic[R]):
    """The open asks of one broadcast."""

    message: Request[R]
    routees: tuple[ActorRef[Any], ...]
    timeout: float
    answers: dict[ActorRef[Any], R] = field(factory=dict[ActorRef[Any], R], init=False)
    failures: dict[ActorRef[Any], Exception] = field(factory=dict[ActorRef[Any], Exception], init=False)

    async def wait(self) -> None:
        """Ask all, and sort what comes back until the deadline into answers and failures."""
        deadline = trio.current_time() + self.timeout
        slots = {routee: ReplySlot[R](deadline) for routee in self.routees}
        try:
            for routee, slot in slots.items():
                _deliver(routee, Ask(self.message, slot))
            with trio.CancelScope(deadline=deadline):
                for routee, slot in slots.items():
                    await self._collect(routee, slot)
            for routee in self.routees[len(self.answers) + len(self.failures) :]:
                await self._collect_late(routee, slots[routee])
        finally:
            for slot in slots.values():
                slot.abandon()

    async def _collect(self, routee: ActorRef[Any], slot: ReplySlot[R]) -> None:
        try:
            self.answers[routee] = await slot.wait()
        except Exception as failure:
            self.failures[routee] = failure

    async def _collect_late(self, routee: ActorRef[Any], slot: ReplySlot[R]) -> None:
        # The one that the deadline was spent on may stand before others that had answered by then.
        if slot.is_resolved:
            await self._collect(routee, slot)
        else:
            self.failures[routee] = AskTimeout(routee.path, self.timeout)


def _deliver(routee: ActorRef[Any], ask: Ask) -> None:
    try:
        cell_of(routee).mailbox.put(ask)
    except MailboxFull as full:
        ask.slot.fail(full)


def round_robin(routees: Iterable[ActorRef[M]] = (), *, name: str = "round_robin") -> Router[M]:
    """Return a router that takes every routee in turn."""
    return Router(RoundRobin(), routees, name=name)


def least_loaded(routees: Iterable[ActorRef[M]] = (), *, name: str = "least_loaded") -> Router[M]:
    """Return a router that takes the routee with the fewest queued messages."""
    return Router(LeastLoaded(), routees, name=name)


def consistent_hash(
    routees: Iterable[ActorRef[M]] = (),
    *,
    key: Callable[[M], HashKey],
    virtual_nodes: int = 128,
    name: str = "consistent_hash",
) -> Router[M]:
    """Return a router that takes the same routee for the same key."""
    return Router(ConsistentHash(key, virtual_nodes), routees, name=name)


def broadcast(routees: Iterable[ActorRef[M]] = (), *, name: str = "broadcast") -> Broadcast[M]:
    """Return a router that sends to all routees."""
    return Broadcast(routees, name)
