"""A pool: an actor that spawns and supervises its own routees, and passes on what it gets."""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from attrs import field, frozen, validators

from ._actor import Actor, Props
from ._context import Context
from ._errors import MailboxFull, NoRoutees
from ._mailbox import DeadLetter
from ._ref import ActorRef, cell_of
from ._reply import Ask, ReplySlot, Request
from ._routers import Router
from ._routing import RoundRobin, RoutingStrategy
from ._supervision import SupervisorStrategy, one_for_one

M = TypeVar("M")

__all__ = ["Pool", "Resize"]


@frozen
class Resize(Request[int]):
    """Give a pool the ``size``, at least 0, that it should have; answered with the new number of routees.

    New routees get messages at once, which wait for them to start. Of the old ones the youngest are stopped first: they
    finish the message in hand, and what is queued for them is lost.
    """

    size: int = field(validator=validators.ge(0))


class Pool(Actor[M | Resize], Generic[M]):
    """Passes each message on to one of ``size`` like actors, its children.

    A failing routee is supervised as ever and keeps its place and its mail. One that stops for good is not replaced;
    ``Resize`` fills the pool up again. A message for a full routee, or for an empty pool, is a dead letter, and an ask
    fails with ``MailboxFull`` or ``NoRoutees``.

    Args:
        props: the recipe of a routee.
        size: how many to start with; the pool has started when they have.
        strategy: makes the routing strategy, for instance ``RoundRobin`` or ``lambda: ConsistentHash(key)``.
        supervisor_strategy: how the routees are supervised.
    """

    def __init__(
        self,
        props: Props[M],
        size: int,
        strategy: Callable[[], RoutingStrategy] = RoundRobin,
        *,
        supervisor_strategy: SupervisorStrategy | None = None,
    ) -> None:
        self.supervisor_strategy: SupervisorStrategy = supervisor_strategy or one_for_one()
        self._props = props
        self._size = size
        self._started = 0
        self._router: Router[M] = Router(strategy())

    async def pre_start(self, ctx: Context[M | Resize]) -> None:
        """Start the first routees, one after the other."""
        self._router.name = ctx.path
        for _ in range(self._size):
            self._router.add(await ctx.spawn(self._props, self._next_name()))

    async def handle(self, message: M | Resize, ctx: Context[M | Resize]) -> int | None:
        """Resize the pool, or pass the message on with its deadline and its reply slot."""
        if isinstance(message, Resize):
            return self._resize(message.size, ctx)
        self._pass_on(message, ctx.defer_reply(), ctx)
        return None

    def _resize(self, size: int, ctx: Context[M | Resize]) -> int:
        for routee in self._router.routees[size:]:
            self._router.remove(routee)
            routee.stop("the pool shrinks")
        for _ in range(size - len(self._router.routees)):
            self._router.add(ctx.spawn_soon(self._props, self._next_name()))
        return len(self._router.routees)

    def _pass_on(self, message: M, slot: ReplySlot[Any], ctx: Context[M | Resize]) -> None:
        path = ctx.path
        try:
            routee: ActorRef[M] = self._router.pick(message)
            path = routee.path
            cell_of(routee).mailbox.put(Ask(message, slot))
        except (MailboxFull, NoRoutees) as error:
            slot.fail(error)
            ctx.system.dead_letters.record(DeadLetter(path, message, str(error)))

    def _next_name(self) -> str:
        # Never one that was used before: a routee being stopped still holds its name.
        self._started += 1
        return str(self._started)
