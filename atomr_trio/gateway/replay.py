"""The latest events of a stream, kept for a client whose connection breaks. Pure."""

from collections import deque
from collections.abc import Iterator
from typing import ClassVar

from attrs import define, field

from atomr_trio.core import InferenceError

__all__ = ["ReplayGone", "ReplayRing", "StreamNotFound"]

_END = b"\n\n"


@define
class StreamNotFound(InferenceError):
    """Nobody keeps a stream of this id: it never was, was ended, or nobody came back for it in time."""

    kind: ClassVar[str] = "stream_not_found"
    id: str

    def __str__(self) -> str:
        return f"there is no stream `{self.id}`, or no longer"


@define
class ReplayGone(InferenceError):
    """The client asks for events that have been dropped since: ``first`` is the oldest one that is left."""

    kind: ClassVar[str] = "replay_gone"
    first: int

    def __str__(self) -> str:
        return f"the events that come next are gone; the oldest one that is left is {self.first}"


@define
class ReplayRing:
    """Numbers the events of a stream, from 1 on, and keeps the latest ones.

    Args:
        capacity: bytes; events that nobody has read yet are kept beyond it.
    """

    _capacity: int
    _events: deque[bytes] = field(init=False, factory=deque[bytes])
    _size: int = field(init=False, default=0)
    last: int = field(init=False, default=0)

    @property
    def first(self) -> int:
        """The number of the oldest event that is left."""
        return self.last - len(self._events) + 1

    @property
    def is_full(self) -> bool:
        """There is as much as it shall keep."""
        return self._size >= self._capacity

    def append(self, written: bytes) -> None:
        """Number and keep events, each of which ends with an empty line."""
        for text in written.split(_END)[:-1]:
            self.last += 1
            event = b"id: %d\n%b%b" % (self.last, text, _END)
            self._events.append(event)
            self._size += len(event)

    def drop(self, read: int) -> None:
        """Drop the oldest events until it is not full any more, though none after number ``read``."""
        while self.is_full and self.first <= read:
            self._size -= len(self._events.popleft())

    def after(self, number: int) -> bytes:
        """Return all events after this one.

        Raises:
            ReplayGone: some of them were dropped.
        """
        if number + 1 < self.first:
            raise ReplayGone(self.first)
        return b"".join(self._newest(self.last - number))

    def _newest(self, count: int) -> Iterator[bytes]:
        return (self._events[index] for index in range(len(self._events) - count, len(self._events)))
