"""A bounded mailbox: it belongs to the cell, so what is queued survives a restart."""

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import outcome
import trio
from attrs import define, field, frozen

from ._actor import OverflowStrategy
from ._errors import ActorStopped, MailboxFull
from ._metadata import Envelope

__all__ = ["EMPTY", "DeadLetter", "DeadLetters", "Mailbox"]

log = logging.getLogger("atomr_trio.actor")


class _Empty:
    __slots__ = ()


EMPTY = _Empty()
"""Stands for no item: a mailbox may hold any value, None included."""


@frozen
class DeadLetter:
    """A ``message`` that no handler saw, the ``path`` of the actor that it was for, and the ``reason``."""

    path: str
    message: Any
    reason: str


@define
class DeadLetters:
    """Counts lost messages and logs the first ten.

    Args:
        count: how many there were.
        recent: the last hundred.
        observe: is told of each, but for those about lost dead letters.
    """

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

    def summarize(self) -> None:
        """Log how many there were, if not each was logged."""
        if self.count > LOGGED_LETTERS:
            log.warning("%d dead letters in all, the first %d were logged", self.count, LOGGED_LETTERS)

    def _log(self, letter: DeadLetter) -> None:
        if self.count <= LOGGED_LETTERS:
            kind = type(letter.message).__name__
            last = "; further ones are only counted" if self.count == LOGGED_LETTERS else ""
            log.warning("dead letter for %s: %s (%s)%s", letter.path, kind, letter.reason, last)


LOGGED_LETTERS = 10


class Mailbox:
    """A bounded memory channel with one receiver, and with a named policy for every way to lose a message.

    As Trio's own, it is first in, first out, for those who wait for room too, and atomic under cancellation: an item is
    either taken or still there. It is not Trio's own because a parked actor must be woken without an item as well, and
    because what is told to a busy actor then costs one comparison and one append.

    ``room`` is the capacity while ``queue`` may be appended to, and 0 while the receiver is parked or the mailbox is
    closed: comparing it with the queue's length tells whether an item may be appended without a further look.
    """

    __slots__ = (
        "_dead_letters",
        "_is_closed",
        "_overflow",
        "_parked",
        "capacity",
        "dropped",
        "path",
        "peak",
        "queue",
        "room",
        "senders",
    )

    def __init__(self, path: str, capacity: int, overflow: OverflowStrategy, dead_letters: DeadLetters) -> None:
        self.path: str = path
        self.capacity: int = capacity
        self.room: int = capacity
        self.queue: deque[Any] = deque()
        # Who waits for room, with what, in their order. Not empty only while the queue is full.
        self.senders: dict[trio.lowlevel.Task, Any] = {}
        self.peak: int = 0
        self.dropped: int = 0
        self._overflow = overflow
        self._dead_letters = dead_letters
        self._parked: trio.lowlevel.Task | None = None
        self._is_closed = False

    def __len__(self) -> int:
        return len(self.queue)

    def put(self, item: Any) -> None:
        """Enqueue without waiting, or lose the item according to policy."""
        if len(self.queue) < self.room:
            self.queue.append(item)
        else:
            self.put_slowly(item)

    def put_slowly(self, item: Any) -> None:
        """Do what ``put`` does when there is no ``room``."""
        if self._parked is not None:
            self._hand_over(self._parked, item)
        elif self._is_closed:
            self._lose(item, "the actor is stopped", ActorStopped(self.path))
        else:
            self._overflows(item)

    async def put_when_room(self, item: Any) -> None:
        """Enqueue, waiting for room; a stop of the actor ends the wait."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._is_closed or self._parked is not None or len(self.queue) < self.room:
            self.put(item)
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        task = trio.lowlevel.current_task()
        self.senders[task] = item

        def give_up(_raise_cancel: object) -> trio.lowlevel.Abort:
            del self.senders[task]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(give_up)

    def take(self) -> Any:
        """Return the next item of a queue that is not empty, and let the first of the waiting senders in."""
        item = self.queue.popleft()
        if self.senders:
            self.queue.append(self._let_in())
        return item

    def _let_in(self) -> Any:
        task = next(iter(self.senders))
        trio.lowlevel.reschedule(task)
        return self.senders.pop(task)

    def note_peak(self) -> None:
        """Take note of how much is queued, at the beginning of a turn."""
        if len(self.queue) > self.peak:
            self.peak = len(self.queue)

    async def park(self) -> Any:
        """Wait for an item while the queue is empty; ``EMPTY`` when woken without one."""
        self._parked, self.room = trio.lowlevel.current_task(), 0
        return await trio.lowlevel.wait_task_rescheduled(self._unpark)

    def wake(self) -> None:
        """End the wait of ``park``, if there is one."""
        if self._parked is not None:
            self._hand_over(self._parked, EMPTY)

    def _hand_over(self, receiver: trio.lowlevel.Task, item: Any) -> None:
        self._unpark()
        trio.lowlevel.reschedule(receiver, outcome.Value(item))

    def _unpark(self, _raise_cancel: object = None) -> trio.lowlevel.Abort:
        self._parked, self.room = None, self.capacity
        return trio.lowlevel.Abort.SUCCEEDED

    def lose(self, item: Any, reason: str) -> None:
        """Make a dead letter of an item that was taken out."""
        self._lose(item, reason, ActorStopped(self.path))

    def forget(self, message: Any, reason: str) -> None:
        """Make a dead letter of a message whose sender knows already."""
        self.dropped += 1
        self._dead_letters.record(DeadLetter(self.path, message, reason))

    def close(self) -> None:
        """Make dead letters of what is queued and of everything that comes later."""
        self._is_closed, self.room = True, 0
        while self.queue:
            self.lose(self.take(), "the actor is stopped")

    def _overflows(self, item: Any) -> None:
        full = MailboxFull(self.path, self.capacity)
        self.peak = self.capacity
        if self._overflow is OverflowStrategy.FAIL:
            raise full
        # The room that a dropped head makes belongs to those who wait for room already.
        if self._overflow is OverflowStrategy.DROP_HEAD and not self.senders:
            head = self.queue.popleft()
            self.queue.append(item)
            # Last, because who is told of it may send to this very mailbox.
            self._lose(head, "newer mail took its place", full)
        else:
            self._lose(item, "the mailbox is full", full)

    def _lose(self, item: Any, reason: str, error: Exception) -> None:
        if isinstance(item, Envelope):
            item.refuse(error)
            item = item.message
        self.forget(item, reason)
