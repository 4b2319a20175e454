"""The deadlines of all asks of a system, kept by one task: a cancel scope for each would cost as much as the ask."""

import math
from heapq import heapify, heappop, heappush
from typing import Any

import trio
from attrs import define, field

from ._errors import AskTimeout
from ._reply import ReplySlot

__all__ = ["Deadlines", "Due"]

SWEEP_AT = 1000


@define(order=False)
class Due:
    """One open question: when it expires, on Trio's clock, and how. ``slot`` is ``None`` once it is settled."""

    at: float
    number: int
    slot: ReplySlot[Any] | None
    path: str
    seconds: float

    def __lt__(self, other: "Due") -> bool:
        return self.at < other.at or (self.at == other.at and self.number < other.number)


@define
class Deadlines:
    """A heap of open questions. The clock knows of the earliest only, and of none while nobody waits."""

    _heap: list[Due] = field(factory=list[Due], init=False)
    _count: int = field(default=0, init=False)
    _settled: int = field(default=0, init=False)
    _scope: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _is_closed: bool = field(default=False, init=False)

    def add(self, slot: ReplySlot[Any], path: str, seconds: float) -> Due:
        """Fail the slot with ``AskTimeout`` at its deadline, unless ``settle`` is called before."""
        self._count += 1
        due = Due(slot.deadline, self._count, slot, path, seconds)
        heappush(self._heap, due)
        if self._heap[0] is due:
            self._scope.deadline = due.at
        return due

    def settle(self, due: Due) -> None:
        """The question is answered, or nobody waits any more."""
        due.slot = None
        self._settled += 1
        if self._heap and self._heap[0] is due:
            self._drop_settled()
        elif self._settled > SWEEP_AT and 2 * self._settled > len(self._heap):
            self._heap = [kept for kept in self._heap if kept.slot is not None]
            heapify(self._heap)
            self._settled = 0

    def _drop_settled(self) -> None:
        heap = self._heap
        while heap and heap[0].slot is None:
            heappop(heap)
            self._settled -= 1
        self._scope.deadline = heap[0].at if heap else math.inf

    async def run(self) -> None:
        """Expire what is due, until ``close``. Shielded: actors that are being stopped ask questions too."""
        while not self._is_closed:
            with trio.CancelScope(shield=True, deadline=self._heap[0].at if self._heap else math.inf) as self._scope:
                await trio.sleep_forever()
            self._expire(trio.current_time())

    def _expire(self, now: float) -> None:
        while self._heap and self._heap[0].at <= now:
            due = heappop(self._heap)
            if due.slot is None:
                self._settled -= 1
            else:
                due.slot.fail(AskTimeout(due.path, due.seconds))

    def close(self) -> None:
        """End ``run``: no actor is left that could be asked."""
        self._is_closed = True
        self._scope.cancel(reason="the system is stopped")
