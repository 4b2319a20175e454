"""A handle on an actor: safe to share, to keep after its death, and to compare."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ._cycle import asking_cell, refuse_cycle
from ._metadata import METADATA, NOTHING, Envelope
from ._reply import Ask, ReplySlot, Request
from ._stream import AskStream, StreamRequest, StreamSink

if TYPE_CHECKING:
    from ._cell import Cell

M_contra = TypeVar("M_contra", contravariant=True)
R = TypeVar("R")

__all__ = ["ActorRef", "cell_of"]


class ActorRef(Generic[M_contra]):
    """Sends messages to one actor, through all its incarnations."""

    __slots__ = ("_cell", "_mailbox")

    def __init__(self, cell: "Cell[Any]") -> None:
        self._cell = cell
        self._mailbox = cell.mailbox

    @property
    def path(self) -> str:
        """Where the actor stands in the tree."""
        return self._cell.path

    @property
    def is_terminated(self) -> bool:
        """Whether the actor is gone for good."""
        return self._cell.terminated.is_set()

    @property
    def queued(self) -> int:
        """How many messages wait in the mailbox, the one in hand not counted."""
        return len(self._cell.inbox)

    def tell(self, message: M_contra) -> None:
        """Put a message into the mailbox; never waits. To a dead actor it becomes a dead letter.

        Raises:
            MailboxFull: the mailbox is full and its policy is ``fail``.
        """
        item = message if METADATA.get() is NOTHING else Envelope(message)
        # The hot path, inlined from `Mailbox.put`.
        mailbox = self._mailbox
        if len(mailbox.queue) < mailbox.room:
            mailbox.queue.append(item)
        else:
            mailbox.put_slowly(item)

    async def send(self, message: M_contra) -> None:
        """Put a message into the mailbox, waiting for room."""
        await self._mailbox.put_when_room(message if METADATA.get() is NOTHING else Envelope(message))

    async def ask(self, message: Request[R], *, timeout: float) -> R:
        """Send a message and wait for its answer.

        Args:
            message: the question; its type says the answer's.
            timeout: seconds to wait.

        Raises:
            AskTimeout: no answer in time.
            ActorStopped: the actor is stopped, or stopped before it answered.
            ActorFailed: the handler raised; the exception is the cause.
            AskCycle: the actor waits for an answer of this one, so it could not get to the question.
            MailboxFull: there is no room for the question.
            Exception: whatever the callee passed to ``ctx.fail``.
        """
        asker = asking_cell()
        if asker is not None:
            refuse_cycle(asker, self._cell)
        system = self._cell.system
        slot: ReplySlot[R] = ReplySlot(system.clock() + timeout, asker)
        self._mailbox.put(Ask(message, slot))
        due = system.deadlines.add(slot, self._cell.path, timeout)
        try:
            return await slot.wait()
        finally:
            slot.abandon()
            system.deadlines.settle(due)

    @asynccontextmanager
    async def ask_stream(self, message: StreamRequest[R], *, capacity: int = 64) -> AsyncGenerator[AsyncIterator[R]]:
        """Send a message and read the stream of its answers: ``async with ref.ask_stream(m) as items``.

        Args:
            message: the question; its type says the items'.
            capacity: items that the producer may be ahead of the reader.

        Raises:
            ActorStopped: the actor is stopped, or stopped before the stream's end.
            ActorFailed: the handler or its producer raised; the exception is the cause.
            MailboxFull: there is no room for the question.
        """
        sink: StreamSink[R] = StreamSink(self.path, capacity)
        self._mailbox.put(AskStream(message, sink))
        async with sink.reading() as items:
            yield items

    def stop(self, reason: str = "stopped by request") -> None:
        """Ask the actor to stop after the message in hand, its children first. Does not wait."""
        self._cell.stop(reason)

    async def wait_terminated(self) -> None:
        """Wait until the actor is gone for good."""
        await self._cell.terminated.wait()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorRef) and other._cell is self._cell

    def __hash__(self) -> int:
        return hash(self._cell)

    def __repr__(self) -> str:
        return f"<ActorRef {self.path}>"


def cell_of(ref: ActorRef[Any]) -> "Cell[Any]":
    """Return the cell behind a reference, for the core's own use."""
    return ref._cell  # pyright: ignore[reportPrivateUsage]
