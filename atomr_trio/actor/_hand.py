"""The message in hand, and everything that an incarnation still owes to those who asked."""

import math
from collections import deque
from typing import Any

import trio

from ._errors import ActorFailed, ActorStopped, StashFull
from ._mailbox import EMPTY, Mailbox
from ._reply import Ask, ReplySlot
from ._stream import AskStream, StreamSink

__all__ = ["Hand"]


class Hand:
    """Opens envelopes, answers them once, and fails what is unanswered when the incarnation ends.

    Args:
        mailbox: where lost messages are reported.
        stash_capacity: messages that may be put aside.
    """

    __slots__ = ("_capacity", "_deferred", "_mailbox", "_stash", "asking", "item", "since", "sink")

    def __init__(self, mailbox: Mailbox, stash_capacity: int) -> None:
        self._mailbox = mailbox
        self._capacity = stash_capacity
        self.item: Any = EMPTY
        self.since = 0.0
        self.asking: ReplySlot[Any] | None = None
        self.sink: StreamSink[Any] | None = None
        self._deferred: set[ReplySlot[Any]] = set()
        self._stash: deque[Any] = deque()

    def take(self, item: Any) -> Any:
        """Take an item and return its message; ``EMPTY`` if it is a question that nobody waits for any more."""
        self.item = item
        if isinstance(item, Ask):
            if item.slot.abandoned or trio.current_time() >= item.slot.deadline:
                self._mailbox.lose(item, "nobody waits for the answer")
                self.item = EMPTY
                return EMPTY
            self.asking = item.slot
            return item.message
        if isinstance(item, AskStream):
            self.sink = item.sink
            return item.message
        return item

    def answer(self, value: Any) -> None:
        """The handler has returned: answer what was not taken over."""
        # `defer`, `take_sink` and `stash` have taken theirs.
        if self.asking is not None:
            self.asking.resolve(value)
            self.asking = None
        if self.sink is not None:
            self.sink.close()
            self.sink = None
        self.item = EMPTY

    def fail(self, path: str, failure: Exception) -> None:
        """The handler has failed: so has its question."""
        error = ActorFailed(path)
        error.__cause__ = failure
        self._end(error)

    def refuse(self, error: Exception) -> None:
        """Answer the question in hand with an error of the actor's choice."""
        if self.asking is not None:
            self.asking.fail(error)
        if self.sink is not None:
            self.sink.close(error)

    def defer(self) -> ReplySlot[Any]:
        """Take over the answer; for a plain message a slot that nobody reads."""
        if self.asking is None:
            return ReplySlot(math.inf)
        slot, self.asking = self.asking, None
        self._deferred = {kept for kept in self._deferred if not (kept.is_resolved or kept.abandoned)}
        self._deferred.add(slot)
        return slot

    def take_sink(self, path: str) -> StreamSink[Any]:
        """Take over the stream; for a plain message one that nobody reads."""
        sink, self.sink = self.sink, None
        return sink if sink is not None else StreamSink(path, 1)

    def stash(self, path: str) -> None:
        """Put the item in hand aside, its question with it.

        Raises:
            StashFull: there is no room.
        """
        if len(self._stash) >= self._capacity:
            raise StashFull(path, self._capacity)
        self._stash.append(self.item)
        self.asking = self.sink = None

    def unstash(self, count: int | None) -> "deque[Any]":
        """Return what was put aside, the oldest first; at most ``count`` items."""
        taken = len(self._stash) if count is None else min(count, len(self._stash))
        return deque(self._stash.popleft() for _ in range(taken))

    def close(self, path: str) -> None:
        """The incarnation ends: fail what is unanswered, and lose what was put aside."""
        stopped = ActorStopped(path)
        self._end(stopped)
        for slot in self._deferred:
            slot.fail(stopped)
        self._deferred.clear()
        while self._stash:
            self._mailbox.lose(self._stash.popleft(), "it was stashed when its incarnation ended")

    def _end(self, error: Exception) -> None:
        if self.asking is not None:
            self.asking.fail(error)
            self.asking = None
        if self.sink is not None:
            self.sink.close(error)
            self.sink = None
        self.item = EMPTY
