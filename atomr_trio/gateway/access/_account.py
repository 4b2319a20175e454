"""What one key has used, and whether it may use more. Pure: the time is an argument."""

import math

from attrs import define, field, frozen

from ._budget import Budget, Verdict
from ._errors import QuotaExhausted, QuotaHeld, RequestsLimited, TokensLimited, TooLargeForLimit
from ._keys import ApiKey
from ._window import SlidingWindow

__all__ = ["Account", "Cost", "Moment", "Reservation", "Spent", "nano_usd"]

NANO = 1_000_000_000
# When one of the open requests ends is not known.
RETRY = 1.0

Refusal = (RequestsLimited, TokensLimited, TooLargeForLimit, QuotaHeld, QuotaExhausted)


@frozen
class Moment:
    """Now: seconds of a clock that only goes forward, and Unix seconds."""

    clock: float
    unix: float


@frozen
class Cost:
    """Tokens, and billionths of a dollar."""

    tokens: int = 0
    nano_usd: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.tokens + other.tokens, self.nano_usd + other.nano_usd)


def nano_usd(dollars: float) -> int:
    """An amount in billionths of a dollar, rounded up. What is no amount, such as NaN, is nothing."""
    return math.ceil(dollars * NANO) if 0 < dollars < math.inf else 0


@frozen
class Reservation:
    """What is set aside for one request, and the second in which its tokens count."""

    cost: Cost
    second: int


@frozen
class Spent:
    """What a key has spent since the begin of its budget's period, in Unix seconds."""

    since: int
    tokens: int
    nano_usd: int


@define(eq=False)
class Account:
    """The use of one key. Its size is bounded.

    Args:
        key: with its limits.
        open: how many of its requests run.
        refused: how many requests were refused for a limit.
    """

    key: ApiKey
    open: int = field(init=False, default=0)
    refused: int = field(init=False, default=0)
    requests: SlidingWindow = field(init=False, factory=lambda: SlidingWindow(None))
    tokens: SlidingWindow = field(init=False, factory=lambda: SlidingWindow(None))
    token_budget: Budget = field(init=False, factory=lambda: Budget(None))
    usd_budget: Budget = field(init=False, factory=lambda: Budget(None))

    def __attrs_post_init__(self) -> None:
        self.change(self.key)

    def change(self, key: ApiKey) -> None:
        """Go on under other limits; what was used stays used."""
        self.key = key
        self.requests.limit, self.tokens.limit = key.requests_per_minute, key.tokens_per_minute
        self.token_budget.limit = key.budget_tokens
        self.usd_budget.limit = None if key.budget_usd is None else nano_usd(key.budget_usd)
        self.token_budget.period = self.usd_budget.period = key.budget_period

    @property
    def is_bounded(self) -> bool:
        """Whether a request has to say how many tokens it may take, or what it may cost."""
        return self.key.tokens_per_minute is not None or self.has_budget

    @property
    def bounds_cost(self) -> bool:
        """Whether it has to say what it may cost."""
        return self.key.budget_usd is not None

    @property
    def has_budget(self) -> bool:
        """Whether what it has spent must outlive the process."""
        return self.key.budget_tokens is not None or self.key.budget_usd is not None

    def enter(self, now: Moment) -> None:
        """Begin a request.

        Raises:
            RequestsLimited: there were too many in the last minute, or there are too many at once.
            QuotaHeld: what is left of a budget is reserved by others.
            QuotaExhausted: a budget is used up.
        """
        try:
            self._check_entry(now)
        except Refusal:
            self.refused += 1
            raise
        self.requests.take(1, now.clock)
        self.open += 1

    def leave(self) -> None:
        """End a request."""
        self.open -= 1

    def reserve(self, most: Cost, now: Moment) -> Reservation:
        """Set aside what a request may take at most.

        Raises:
            TooLargeForLimit: it can never be had within a minute.
            TokensLimited: the last minute has not left that much.
            QuotaHeld: what is left of the budget would do, but others hold it.
            QuotaExhausted: the budget has not that much left.
        """
        try:
            self._check_tokens(most.tokens, now.clock)
            self._check_budgets(most, now.unix)
        except Refusal:
            self.refused += 1
            raise
        self.token_budget.reserve(most.tokens)
        self.usd_budget.reserve(most.nano_usd)
        return Reservation(most, self.tokens.take(most.tokens, now.clock))

    def settle(self, reservation: Reservation, used: Cost, now: Moment) -> None:
        """Give back what was set aside, and count what was used. Once for each reservation."""
        unused = reservation.cost.tokens - used.tokens
        if unused >= 0:
            self.tokens.give_back(unused, reservation.second)
        else:
            self.tokens.take(-unused, now.clock)
        self.token_budget.settle(reservation.cost.tokens, used.tokens, now.unix)
        self.usd_budget.settle(reservation.cost.nano_usd, used.nano_usd, now.unix)

    def spent(self, unix: float) -> Spent:
        """What has to be remembered when the process ends, at this time (Unix seconds)."""
        for budget in (self.token_budget, self.usd_budget):
            budget.left(unix)
        return Spent(self.token_budget.since, self.token_budget.spent, self.usd_budget.spent)

    def remember(self, spent: Spent) -> None:
        """Go on from what an earlier process has remembered."""
        self.token_budget.since = self.usd_budget.since = spent.since
        self.token_budget.spent, self.usd_budget.spent = spent.tokens, spent.nano_usd

    def _check_entry(self, now: Moment) -> None:
        wait = self.requests.wait(1, now.clock)
        if wait > 0:
            raise RequestsLimited(self.key.requests_per_minute or 0, "per minute", wait)
        if self.key.max_concurrent is not None and self.open >= self.key.max_concurrent:
            raise RequestsLimited(self.key.max_concurrent, "at once", RETRY)
        # Asked before the body is read: a client that has nothing left need not send it.
        self._check_budgets(Cost(1, 1), now.unix)

    def _check_tokens(self, wanted: int, clock: float) -> None:
        wait = self.tokens.wait(wanted, clock)
        limit = self.tokens.limit or 0
        if math.isinf(wait):
            raise TooLargeForLimit(limit, wanted)
        if wait > 0:
            raise TokensLimited(limit, wanted, self.tokens.left(clock), wait)

    def _check_budgets(self, most: Cost, unix: float) -> None:
        _check(self.token_budget, most.tokens, unix, "tokens", 1)
        _check(self.usd_budget, most.nano_usd, unix, "USD", NANO)


def _check(budget: Budget, wanted: int, unix: float, unit: str, scale: int) -> None:
    verdict = budget.verdict(wanted, unix)
    if verdict is Verdict.HELD:
        raise QuotaHeld(unit, RETRY)
    if verdict is Verdict.SPENT:
        raise QuotaExhausted(unit, budget.left(unix) / scale, wanted / scale)
