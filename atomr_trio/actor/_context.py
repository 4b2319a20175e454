"""What an actor may do: its view of its own cell, valid for one incarnation."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio

from ._actor import ChildSpec, Props
from ._faults import Faults
from ._ref import ActorRef
from ._reply import ReplySlot
from ._timers import Timers

if TYPE_CHECKING:
    from ._incarnation import Incarnation
    from ._system import ActorSystem

M = TypeVar("M")
N = TypeVar("N")

Behaviour = Callable[[Any, "Context[Any]"], Any]

__all__ = ["Behaviour", "Context"]


class Context(Generic[M]):
    """The actor's tools. Usable from its handlers and from the tasks it spawned."""

    __slots__ = ("_cell", "_life")

    def __init__(self, life: "Incarnation[M]") -> None:
        self._life = life
        self._cell = life.cell

    @property
    def self_ref(self) -> ActorRef[M]:
        """This actor."""
        return self._cell.ref

    @property
    def path(self) -> str:
        """Where this actor stands in the tree."""
        return self._cell.path

    @property
    def system(self) -> "ActorSystem":
        """The system this actor lives in."""
        return self._cell.system

    @property
    def faults(self) -> Faults:
        """The fault points of the system: nothing happens there unless a test has planned it."""
        return self._cell.system.faults

    @property
    def incarnation(self) -> int:
        """1 for the first life, 2 after the first restart, and so on."""
        return self._life.number

    @property
    def children(self) -> tuple[ActorRef[Any], ...]:
        """The living children, in start order."""
        return tuple(cell.ref for cell in self._life.children.values())

    async def spawn(self, props: Props[N], name: str) -> ActorRef[N]:
        """Start a child and wait until its ``pre_start`` is through.

        Raises:
            ActorFailed: its first start failed; it is gone.
            ActorStopped: this actor, or the child, was stopped meanwhile.
            NameTaken: a living child has this name.
        """
        return await self.start(ChildSpec(id=name, props=props))

    async def start(self, spec: ChildSpec[N]) -> ActorRef[N]:
        """Like ``spawn``, for a child with a restart type, a deadline or a significance of its own."""
        return await self._life.adopt(spec).started()

    def spawn_soon(self, props: Props[N], name: str) -> ActorRef[N]:
        """Start a child without waiting; a failing start is supervised like any failure.

        Raises:
            ActorStopped: this actor is stopping.
            NameTaken: a living child has this name.
        """
        return self._life.adopt(ChildSpec(id=name, props=props)).ref

    def spawn_task(self, fn: Callable[..., Awaitable[object]], *args: object, name: str | None = None) -> None:
        """Run a task that ends with this incarnation; an exception out of it is a failure of this actor."""
        self._life.spawn_task(fn, *args, name=name)

    def watch(self, ref: ActorRef[Any], *, death_pact: bool = False) -> None:
        """Have ``on_terminated`` called once when ``ref`` is gone; soon, if it is gone already.

        Args:
            ref: whom to watch; watching again changes the pact.
            death_pact: do not live on without it: instead of the call this actor fails with ``DeathPact``.
        """
        self._cell.watches.watch(ref, death_pact=death_pact)

    def unwatch(self, ref: ActorRef[Any]) -> None:
        """Undo ``watch``: nothing is delivered any more, not even what was queued."""
        self._cell.watches.unwatch(ref)

    def stop(self, reason: str = "stopped itself") -> None:
        """Stop this actor after the message in hand. A permanent child is then started again."""
        self._cell.stop(reason, by_itself=True)

    def fail(self, error: Exception) -> None:
        """Answer the ask in hand with an error, without failing this actor. A plain tell is not affected."""
        self._cell.hand.refuse(error)

    def defer_reply(self) -> ReplySlot[Any]:
        """Take over the answer of the ask in hand, to resolve it after the handler has returned.

        The slot is failed with ``ActorStopped`` if this incarnation ends first. For a plain tell it is a slot that
        nobody reads.
        """
        return self._cell.hand.defer()

    @property
    def deadline(self) -> float:
        """When the asker of the message in hand stops waiting, on Trio's clock; infinity for a plain tell."""
        asking = self._cell.hand.asking
        return asking.deadline if asking is not None else float("inf")

    @property
    def abandoned(self) -> bool:
        """Whether the asker of the message in hand does not wait any more."""
        asking = self._cell.hand.asking
        return asking is not None and asking.abandoned

    def stream(self, producer: Callable[..., Awaitable[object]], *args: object) -> None:
        """Answer the ``ask_stream`` in hand: ``producer(sink, *args)`` runs in a task of this incarnation.

        It is cancelled when the reader leaves, and ends the stream when it returns. An exception out of it is a
        failure of this actor, as of any task.
        """
        sink = self._cell.hand.take_sink(self._cell.path)
        name = f"stream {getattr(producer, '__name__', '')}"
        self._life.spawn_task(sink.produce, producer, args, name=name)

    def stash(self) -> None:
        """Put the message in hand aside. What is still there when the incarnation ends becomes a dead letter.

        Raises:
            StashFull: there is no room.
        """
        self._cell.hand.stash(self._cell.path)

    def unstash(self, count: int | None = None) -> None:
        """Have the stashed messages, or the oldest ``count`` of them, handled before any other mail."""
        self._cell.inbox.give_back(self._cell.hand.unstash(count))

    def become(self, behaviour: Behaviour) -> None:
        """Let ``behaviour(message, ctx)`` handle messages from the next one on, until ``unbecome`` or a restart."""
        self._life.become(behaviour)

    def unbecome(self) -> None:
        """Go back to the behaviour before the last ``become``."""
        self._life.unbecome()

    @property
    def timers(self) -> Timers:
        """The keyed timers of this incarnation.

        Raises:
            ActorStopped: this incarnation is over.
        """
        return self._life.timers

    def set_receive_timeout(self, seconds: float | None) -> None:
        """Have ``ReceiveTimeout()`` handled whenever no message has come for so long; ``None`` turns it off."""
        self._cell.inbox.set_idle_timeout(seconds)

    @property
    def now(self) -> float:
        """Trio's clock, in seconds."""
        return trio.current_time()
