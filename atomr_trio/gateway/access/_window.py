"""How much was taken in the last minute. Pure: the time is an argument."""

import math
from itertools import accumulate

from attrs import define, field

__all__ = ["SPAN", "SlidingWindow"]

SPAN = 60
"""Seconds that the window is long."""


@define
class SlidingWindow:
    """Amounts taken, by the second, so its size is bounded whatever the limit is.

    What was taken in a second counts until all of that second is a minute ago. So no 60 seconds, wherever they
    begin, hold more than the limit, as long as nothing is taken that there is no room for.

    Args:
        limit: how much may be taken in 60 seconds; ``None``: any amount.
    """

    limit: int | None
    _taken: dict[int, int] = field(init=False, factory=dict[int, int])
    _latest: int = field(init=False, default=0)

    def total(self, now: float) -> int:
        """How much counts at this time (seconds)."""
        self._forget(now)
        return sum(self._taken.values())

    def wait(self, amount: int, now: float) -> float:
        """Seconds until so much fits if nothing else is taken: 0 if it does now, infinite if it never will."""
        if self.limit is None:
            return 0.0
        if amount > self.limit:
            return math.inf
        excess = self.total(now) + amount - self.limit
        if excess <= 0:
            return 0.0
        seconds = sorted(self._taken)
        forgotten = accumulate(self._taken[second] for second in seconds)
        return next(leaves(second) - now for second, sum in zip(seconds, forgotten, strict=True) if sum >= excess)

    def take(self, amount: int, now: float) -> int:
        """Take so much, whether there is room or not; returns the second that it counts in."""
        self._forget(now)
        self._taken[self._latest] = self._taken.get(self._latest, 0) + amount
        return self._latest

    def give_back(self, amount: int, second: int) -> None:
        """Return some of what was taken in this second. It is forgotten if that is long ago."""
        if second in self._taken:
            self._taken[second] = max(0, self._taken[second] - amount)

    def left(self, now: float) -> int:
        """How much can be taken at once; 0 if there is no limit to subtract from."""
        return 0 if self.limit is None else max(0, self.limit - self.total(now))

    def full_again_after(self, now: float) -> float:
        """Seconds until nothing counts any more."""
        self._forget(now)
        return max((leaves(second) - now for second, amount in self._taken.items() if amount), default=0.0)

    def _forget(self, now: float) -> None:
        # A clock that goes back would bring forgotten seconds to life.
        self._latest = max(self._latest, math.floor(now))
        for second in [second for second in self._taken if second < self._latest - SPAN]:
            del self._taken[second]


def leaves(second: int) -> int:
    """When what was taken in this second stops to count."""
    return second + SPAN + 1
