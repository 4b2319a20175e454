"""The message in hand, and everything that an incarnation still owes to those who asked."""

import math
from collections.abc import Mapping
from typing import Any

import trio

from ._errors import ActorFailed, ActorStopped, StashFull
from ._mailbox import EMPTY, Mailbox
from ._metadata import METADATA, NOTHING, Envelope
from ._reply import Ask, ReplySlot
from ._stream import AskStream, StreamSink

__all__ = ["Hand"]

SWEEP_AT_LEAST = 64
"""Deferred answers are swept of settled ones when so many, or twice as many as were open last time, have come."""


class Hand:
    """Opens envelopes, answers them once, and fails what is unanswered when the incarnation ends.

    Args:
        mailbox: where lost messages are reported.
        stash_capacity: messages that may be put aside.
    """

    __slots__ = (
        "_capacity",
        "_deferred",
        "_mailbox",
        "_stash",
        "_sweep_at",
        "asking",
        "is_marked",
        "item",
        "since",
        "sink",
    )

    def __init__(self, mailbox: Mailbox, stash_capacity: int) -> None:
        self._mailbox = mailbox
        self._capacity = stash_capacity
        self.item: Any = EMPTY
        self.since: float = 0.0
        self.asking: ReplySlot[Any] | None = None
        self.sink: StreamSink[Any] | None = None
        self.is_marked: bool = False
        self._deferred: list[ReplySlot[Any]] = []
        self._sweep_at = SWEEP_AT_LEAST
        self._stash: list[Any] = []

    @property
    def message(self) -> Any:
        """The message in hand, or ``EMPTY``."""
        return self.item.message if isinstance(self.item, Envelope) else self.item

    def open(self, item: Any) -> Any:
        """Return the message of an item; ``EMPTY`` if it is a question that nobody waits for any more."""
        metadata = NOTHING
        if isinstance(item, Envelope):
            metadata = item.metadata
            if isinstance(item, Ask):
                if item.slot.abandoned or trio.current_time() >= item.slot.deadline:
                    # Its own deadline ends it: an error of ours would not say that it came too late.
                    self._mailbox.forget(item.message, "nobody waits for the answer")
                    return EMPTY
                self.asking = item.slot
            elif isinstance(item, AskStream):
                if item.sink.is_dropped:
                    self._mailbox.forget(item.message, "nobody reads the answers")
                    return EMPTY
                self.sink = item.sink
            item = item.message
        if self.is_marked or metadata is not NOTHING:
            self._mark(metadata)
        return item

    def put_down(self) -> None:
        """The handler has had its turn; what comes next has nothing to do with the message that was in hand."""
        self.item = EMPTY
        if self.is_marked:
            self._mark(NOTHING)

    def _mark(self, metadata: Mapping[str, Any]) -> None:
        # The task's own context: what the handler sends carries it on.
        METADATA.set(metadata)
        self.is_marked = metadata is not NOTHING

    def answer(self, value: Any) -> None:
        """The handler has returned: answer what was not taken over."""
        # `defer`, `take_sink` and `stash` have taken theirs.
        if self.asking is not None:
            self.asking.resolve(value)
            self.asking = None
        if self.sink is not None:
            self.sink.close()
            self.sink = None

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
        self._deferred.append(slot)
        if len(self._deferred) >= self._sweep_at:
            self._deferred = [kept for kept in self._deferred if kept.is_open]
            self._sweep_at = max(SWEEP_AT_LEAST, 2 * len(self._deferred))
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

    def unstash(self, count: int | None) -> list[Any]:
        """Return what was put aside, the oldest first; at most ``count`` items."""
        taken = self._stash[:count]
        del self._stash[:count]
        return taken

    def close(self, path: str, *, keep_stash: bool = False) -> None:
        """The incarnation ends: fail what is unanswered, and lose what was put aside unless it is to be kept."""
        stopped = ActorStopped(path)
        self._end(stopped)
        self.put_down()
        for slot in self._deferred:
            slot.fail(stopped)
        self._deferred.clear()
        for item in () if keep_stash else self.unstash(None):
            self._mailbox.lose(item, "it was stashed when its incarnation ended")

    def _end(self, error: Exception) -> None:
        if self.asking is not None:
            self.asking.fail(error)
            self.asking = None
        if self.sink is not None:
            self.sink.close(error)
            self.sink = None
        self.item = EMPTY
