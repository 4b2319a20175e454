"""What a key may spend in all. Pure: the date is an argument."""

import enum
from datetime import UTC, datetime
from typing import Literal

from attrs import define, field

__all__ = ["Budget", "Period", "Verdict", "period_start"]

Period = Literal["total", "month", "day"]


class Verdict(enum.Enum):
    """Whether an amount can be reserved: yes, not while others hold so much, or not in this period."""

    FITS = enum.auto()
    HELD = enum.auto()
    SPENT = enum.auto()


def period_start(period: Period, unix: float) -> int:
    """When the day or month (UTC) that contains this time began, both in Unix seconds; 0 for ``total``."""
    if period == "total":
        return 0
    day = datetime.fromtimestamp(unix, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return int((day.replace(day=1) if period == "month" else day).timestamp())


@define
class Budget:
    """Whole amounts, so that what is reserved and settled leaves no crumbs.

    What a request may take at most is reserved before it runs, and settled for what it took: requests that run at the
    same time cannot spend the same money. ``spent + reserved`` goes beyond the limit only where a request took more
    than it had reserved.

    Args:
        limit: how much may be spent in a period; ``None``: any amount.
        period: after which the budget is whole again.
    """

    limit: int | None
    period: Period = "total"
    spent: int = field(default=0)
    since: int = field(default=0)
    reserved: int = field(init=False, default=0)

    def left(self, unix: float) -> int:
        """How much is not spent at this time (Unix seconds), be it reserved or not; 0 if there is no limit."""
        self._turn(unix)
        return 0 if self.limit is None else max(0, self.limit - self.spent)

    def verdict(self, amount: int, unix: float) -> Verdict:
        """Whether so much can be reserved at this time (Unix seconds). Of an empty budget not even nothing can."""
        left = self.left(unix)
        if self.limit is None or (left > 0 and amount <= left - self.reserved):
            return Verdict.FITS
        return Verdict.HELD if left > 0 and amount <= left else Verdict.SPENT

    def reserve(self, amount: int) -> None:
        """Set so much aside."""
        self.reserved += amount

    def settle(self, reserved: int, spent: int, unix: float) -> None:
        """Return what was reserved, and note what was spent of it, in the period of this time (Unix seconds)."""
        self._turn(unix)
        self.reserved -= reserved
        self.spent += spent

    def _turn(self, unix: float) -> None:
        # Only forward: a clock that is set back does not give the last period's money out again.
        if (start := period_start(self.period, unix)) > self.since:
            self.since, self.spent = start, 0
