"""Who runs, who waits, who is turned away: the engine core's arithmetic, pure."""

from collections import OrderedDict
from typing import Generic, TypeVar

from atomr_trio.core import Backpressure, CapacityPolicy, Serving

T = TypeVar("T")

__all__ = ["Admission"]


class Admission(Generic[T]):
    """Slots and a bounded queue in arrival order."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._running: set[str] = set()
        self._waiting: OrderedDict[str, T] = OrderedDict()

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

    def admit(self, key: str, request: T) -> bool:
        """Give the request a slot (true) or a place in the queue (false).

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
        self._waiting[key] = request
        return False

    def release(self, key: str) -> list[T]:
        """Free the slot or the queue place of a request, and return those that got a slot by it."""
        self._running.discard(key)
        self._waiting.pop(key, None)
        started: list[T] = []
        while self._waiting and self.running < self._serving.max_concurrent:
            next_key, request = self._waiting.popitem(last=False)
            self._running.add(next_key)
            started.append(request)
        return started

    def drain_queue(self) -> list[T]:
        """Empty the queue and return what was in it."""
        waiting = list(self._waiting.values())
        self._waiting.clear()
        return waiting
