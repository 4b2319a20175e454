"""Who runs, who waits, who is turned away: the engine core's arithmetic, pure."""

from bisect import insort
from typing import Generic, TypeVar

from attrs import frozen

from atomr_trio.core import Backpressure, CapacityPolicy, Serving

T = TypeVar("T")

__all__ = ["AGEING", "Admission"]

AGEING = 64
"""How many later arrivals one level of priority is worth: nobody waits for ever behind better ones."""


@frozen
class _Place(Generic[T]):
    rank: tuple[int, int]
    key: str
    request: T


def _rank(place: _Place[T]) -> tuple[int, int]:
    return place.rank


class Admission(Generic[T]):
    """Slots and a bounded queue, by arrival plus ``AGEING`` for each level of priority."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._running: set[str] = set()
        self._waiting: list[_Place[T]] = []
        self._arrivals = 0

    @property
    def running(self) -> int:
        """Requests that hold a slot."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    @property
    def load(self) -> float:
        """Running and waiting requests, over ``max_concurrent``."""
        return (self.running + self.waiting) / self._serving.max_concurrent

    def admit(self, key: str, request: T, priority: int = 0) -> bool:
        """Give the request a slot (true) or a place in the queue (false).

        Args:
            key: its name.
            request: what is handed out when it gets its slot.
            priority: lower is served sooner.

        Raises:
            Backpressure: neither is to be had.
        """
        if self.running < self._serving.max_concurrent and not self._waiting:
            self._running.add(key)
            return True
        if self._serving.on_capacity_exhausted is CapacityPolicy.REJECT:
            raise Backpressure("engine at capacity")
        if self.waiting >= self._serving.queue_capacity:
            raise Backpressure("engine queue full")
        self._arrivals += 1
        rank = (self._arrivals + AGEING * priority, self._arrivals)
        insort(self._waiting, _Place(rank, key, request), key=_rank)
        return False

    def release(self, key: str) -> list[T]:
        """Free the slot or the queue place of a request, and return those that got a slot by it."""
        if key in self._running:
            self._running.remove(key)
        else:
            self._waiting = [place for place in self._waiting if place.key != key]
        started: list[T] = []
        while self._waiting and self.running < self._serving.max_concurrent:
            following = self._waiting.pop(0)
            self._running.add(following.key)
            started.append(following.request)
        return started

    def drain_queue(self) -> list[T]:
        """Empty the queue and return what was in it."""
        waiting = [place.request for place in self._waiting]
        self._waiting.clear()
        return waiting
