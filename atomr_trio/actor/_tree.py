"""A snapshot of the tree, for people and for pages."""

import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from attrs import frozen

from ._log import log
from ._mailbox import EMPTY

if TYPE_CHECKING:
    from ._cell import Cell

__all__ = ["ActorNode", "dumping", "snapshot"]


@frozen(kw_only=True)
class ActorNode:
    """One actor in a snapshot of the tree.

    Args:
        path: where it stands.
        state: ``starting``, ``running``, ``stopping``, ``restarting``, ``waiting`` (to be restarted) or ``stopped``.
        queued: messages in the mailbox, the one in hand not counted.
        peak: the most that were queued when it turned to its mail.
        dropped: messages that became dead letters.
        restarts: how often it was started again.
        last_failure: the exception that it last failed with.
        message: the type of the message in hand; ``None`` when it waits for mail.
        message_age: seconds since that message was taken up.
        children: its living children, in start order.
    """

    path: str
    state: str
    queued: int
    peak: int
    dropped: int
    restarts: int
    last_failure: str | None
    message: str | None
    message_age: float | None
    children: "tuple[ActorNode, ...]"

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def walk(self) -> "Iterator[ActorNode]":
        """Yield this actor and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def lines(self, indent: str = "") -> Iterator[str]:
        """Yield the drawing of the tree, line by line."""
        name = self.path if self.path == "/" or not indent else self.path.rpartition("/")[2]
        yield f"{indent}{name}  {'  '.join(self._facts())}"
        for child in self.children:
            yield from child.lines(indent + "  ")

    def _facts(self) -> Iterator[str]:
        yield self.state
        if self.peak or self.queued:
            yield f"queued {self.queued} (peak {self.peak})"
        if self.dropped:
            yield f"dropped {self.dropped}"
        if self.message is not None:
            yield f"handles {self.message} for {self.message_age or 0:.3g}s"
        if self.restarts:
            yield f"restarts {self.restarts}"
        if self.last_failure is not None:
            yield f"last failure {self.last_failure}"


def snapshot(cell: "Cell[Any]") -> ActorNode:
    """Return the tree below a cell as it is now."""
    message = cell.hand.message
    busy = message is not EMPTY
    return ActorNode(
        path=cell.path,
        state=cell.state,
        queued=len(cell.inbox),
        peak=max(cell.mailbox.peak, len(cell.mailbox)),
        dropped=cell.mailbox.dropped,
        restarts=max(0, cell.incarnation - 1),
        last_failure=None if cell.last_failure is None else repr(cell.last_failure),
        message=type(message).__name__ if busy else None,
        message_age=cell.system.clock() - cell.hand.since if busy else None,
        children=tuple(snapshot(child) for child in cell.children.values()),
    )


@asynccontextmanager
async def dumping(number: signal.Signals | None, tree: Callable[[], ActorNode]) -> AsyncGenerator[None]:
    """Write the tree to the log whenever the signal arrives; ``None``: do nothing."""
    if number is None:
        yield
        return
    with trio.open_signal_receiver(number) as arrivals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_dump, arrivals, tree, name=f"dump on {number.name}")
            yield
            nursery.cancel_scope.cancel(reason="the system is stopped")


async def _dump(arrivals: AsyncIterator[int], tree: Callable[[], ActorNode]) -> None:
    async for _ in arrivals:
        log.warning("the tree of actors:\n%s", tree())
