"""What an actor may do: its view of its own cell, valid for one incarnation."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio

from ._actor import ChildSpec, Props
from ._ref import ActorRef
from ._reply import ReplySlot

if TYPE_CHECKING:
    from ._cell import Cell
    from ._system import ActorSystem

M = TypeVar("M")
N = TypeVar("N")

__all__ = ["Context"]


class Context(Generic[M]):
    """The actor's tools. Usable from its handlers and from the tasks it spawned."""

    __slots__ = ("_cell", "_incarnation")

    def __init__(self, cell: "Cell[M]", incarnation: int) -> None:
        self._cell = cell
        self._incarnation = incarnation

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
    def incarnation(self) -> int:
        """1 for the first life, 2 after the first restart, and so on."""
        return self._incarnation

    @property
    def children(self) -> tuple[ActorRef[Any], ...]:
        """The living children, in start order."""
        return tuple(cell.ref for cell in self._cell.children.values())

    async def spawn(self, props: Props[N], name: str) -> ActorRef[N]:
        """Start a child and wait until its ``pre_start`` is through.

        Raises:
            ActorFailed: its first start failed; it is gone.
            ActorStopped: this actor, or the child, was stopped meanwhile.
            NameTaken: a living child has this name.
        """
        return await self._cell.spawn(ChildSpec(id=name, props=props), self._incarnation)

    async def start(self, spec: ChildSpec[N]) -> ActorRef[N]:
        """Like ``spawn``, for a child with a restart type or significance of its own."""
        return await self._cell.spawn(spec, self._incarnation)

    def spawn_soon(self, props: Props[N], name: str) -> ActorRef[N]:
        """Start a child without waiting; a failing start is supervised like any failure.

        Raises:
            ActorStopped: this actor is stopping.
            NameTaken: a living child has this name.
        """
        return self._cell.spawn_soon(ChildSpec(id=name, props=props), self._incarnation)

    def spawn_task(self, fn: Callable[..., Awaitable[object]], *args: object, name: str | None = None) -> None:
        """Run a task that ends with this incarnation; an exception out of it is a failure of this actor."""
        self._cell.spawn_task(fn, args, name, self._incarnation)

    def watch(self, ref: ActorRef[Any]) -> None:
        """Have ``on_terminated`` called once when ``ref`` is gone; soon, if it is gone already."""
        self._cell.watch(ref)

    def unwatch(self, ref: ActorRef[Any]) -> None:
        """Undo ``watch``: nothing is delivered any more, not even what was queued."""
        self._cell.unwatch(ref)

    def stop(self, reason: str = "stopped itself") -> None:
        """Stop this actor after the message in hand. A permanent child is then started again."""
        self._cell.stop(reason, by_itself=True)

    def fail(self, error: Exception) -> None:
        """Answer the ask in hand with an error, without failing this actor. A plain tell is not affected."""
        if self._cell.asking is not None:
            self._cell.asking.fail(error)

    def defer_reply(self) -> ReplySlot[Any]:
        """Take over the answer of the ask in hand, to resolve it after the handler has returned.

        The slot is failed with ``ActorStopped`` if this incarnation ends first. For a plain tell it is a slot that
        nobody reads.
        """
        return self._cell.defer_reply()

    @property
    def deadline(self) -> float:
        """When the asker of the message in hand stops waiting, on Trio's clock; infinity for a plain tell."""
        return self._cell.asking.deadline if self._cell.asking is not None else float("inf")

    @property
    def now(self) -> float:
        """Trio's clock, in seconds."""
        return trio.current_time()
