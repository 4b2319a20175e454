"""A bounded mailbox: it belongs to the cell, so what is queued survives a restart."""

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import trio
from attrs import define, field, frozen

from ._actor import OverflowStrategy
from ._errors import ActorStopped, MailboxFull
from ._reply import Ask
from ._stream import AskStream

__all__ = ["EMPTY", "DeadLetter", "DeadLetters", "Mailbox"]

log = logging.getLogger("atomr_trio.actor")


class _Empty:
    __slots__ = ()


EMPTY = _Empty()
"""What ``get_nowait`` returns when there is nothing: a mailbox may hold any value, None included."""


@frozen
class DeadLetter:
    """A message that no handler saw, for whom it was, and why."""

    path: str
    message: Any
    reason: str


@define
class DeadLetters:
    """Counts lost messages, keeps the last hundred and logs the first ten. ``observe`` is told of each."""

    count: int = 0
    recent: deque[DeadLetter] = field(factory=lambda: deque[DeadLetter](maxlen=100))
    observe: Callable[[DeadLetter], None] | None = None

    def record(self, letter: DeadLetter) -> None:
        """Take note of a lost message."""
        self.count += 1
        self.recent.append(letter)
        self._log(letter)
        # News of a lost message that got lost itself would breed more of its kind in the same full mailboxes.
        if self.observe is not None and not isinstance(letter.message, DeadLetter):
            self.observe(letter)

    def _log(self, letter: DeadLetter) -> None:
        if self.count <= 10:
            kind = type(letter.message).__name__
            last = "; further ones are only counted" if self.count == 10 else ""
            log.warning("dead letter for %s: %s (%s)%s", letter.path, kind, letter.reason, last)


class Mailbox:
    """A memory channel with a named policy for every way in which a message can be lost."""

    __slots__ = ("_dead_letters", "_overflow", "_receive", "_send", "capacity", "path")

    def __init__(self, path: str, capacity: int, overflow: OverflowStrategy, dead_letters: DeadLetters) -> None:
        self.path = path
        self.capacity = capacity
        self._overflow = overflow
        self._dead_letters = dead_letters
        self._send, self._receive = trio.open_memory_channel[Any](capacity)

    def __len__(self) -> int:
        return self._receive.statistics().current_buffer_used

    def put(self, item: Any) -> None:
        """Enqueue without waiting, or lose the message according to policy."""
        try:
            self._send.send_nowait(item)
        except trio.WouldBlock:
            self._reject(item)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._lose(item, "the actor is stopped", ActorStopped(self.path))

    async def put_when_room(self, item: Any) -> None:
        """Enqueue, waiting for room; a stop of the actor ends the wait."""
        try:
            await self._send.send(item)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._lose(item, "the actor is stopped", ActorStopped(self.path))

    def get_nowait(self) -> Any:
        """Return the next item, or ``EMPTY``."""
        try:
            return self._receive.receive_nowait()
        except trio.WouldBlock:
            return EMPTY

    async def get(self) -> Any:
        """Wait for the next item."""
        return await self._receive.receive()

    def lose(self, item: Any, reason: str) -> None:
        """Make a dead letter of an item that was taken out."""
        self._lose(item, reason, ActorStopped(self.path))

    def close(self) -> None:
        """Make dead letters of what is queued and of everything that comes later."""
        # Closing the last receiver clears the buffer without notice, so drain first.
        while (item := self.get_nowait()) is not EMPTY:
            self.lose(item, "the actor is stopped")
        self._receive.close()

    def _reject(self, item: Any) -> None:
        full = MailboxFull(self.path, self.capacity)
        if self._overflow is OverflowStrategy.FAIL:
            raise full
        self._lose(item, "the mailbox is full", full)

    def _lose(self, item: Any, reason: str, error: Exception) -> None:
        if isinstance(item, Ask):
            item.slot.fail(error)
            item = item.message
        elif isinstance(item, AskStream):
            item.sink.close(error)
            item = item.message
        self._dead_letters.record(DeadLetter(self.path, item, reason))
