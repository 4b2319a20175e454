"""The limiters as state machines: no window, budget or place is ever given twice, and nothing stays reserved."""

import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import InferenceError
from atomr_trio.gateway.access import (
    SPAN,
    Account,
    ApiKey,
    Budget,
    Cost,
    Moment,
    QuotaExhausted,
    QuotaHeld,
    RequestsLimited,
    SlidingWindow,
    TokensLimited,
    TooLargeForLimit,
    Verdict,
    duration,
    limit_headers,
    nano_usd,
    period_start,
)

HASH = "0" * 64

steps = st.floats(0, 90, allow_nan=False)
amounts = st.integers(0, 12)


def key(**fields):
    return ApiKey(**{"name": "k", "sha256": HASH, **fields})


def at(clock, unix=None):
    return Moment(clock, 1_700_000_000 + clock if unix is None else unix)


def most_in_a_window(taken):
    """The largest sum of amounts within less than 60 seconds. Windows that begin with an amount are enough."""
    return max((sum(amount for time, amount in taken if begin <= time < begin + SPAN) for begin, _ in taken), default=0)


# The window.


@given(st.integers(1, 10), st.lists(st.tuples(steps, amounts)))
def test_no_window_holds_more_than_the_limit(limit, wishes):
    window, now, taken = SlidingWindow(limit), 0.0, []
    for step, amount in wishes:
        now += step
        if window.wait(amount, now) == 0:
            window.take(amount, now)
            taken.append((now, amount))
        assert window.total(now) + window.left(now) == limit
    assert most_in_a_window(taken) <= limit


@given(st.integers(1, 10), st.lists(st.tuples(steps, amounts)), st.integers(1, 10))
def test_the_wait_is_long_enough_and_not_too_long(limit, wishes, amount):
    window, now = SlidingWindow(limit), 0.0
    for step, wish in wishes:
        now += step
        if window.wait(wish, now) == 0:
            window.take(wish, now)
    wait = window.wait(amount, now)
    assert (wait == math.inf) == (amount > limit)
    if 0 < wait < math.inf:
        assert wait <= SPAN + 1
        assert window.wait(amount, now + wait - 0.01) > 0
        assert window.wait(amount, now + wait + 1e-6) == 0


@given(st.lists(st.tuples(steps, amounts, amounts)))
def test_what_is_given_back_makes_room_and_never_too_much(wishes):
    window, now, taken = SlidingWindow(20), 0.0, []
    for step, amount, back in wishes:
        now += step
        if window.wait(amount, now) == 0:
            second = window.take(amount, now)
            window.give_back(min(back, amount), second)
            taken.append((now, amount - min(back, amount)))
            assert window.total(now) >= taken[-1][1]
    assert most_in_a_window(taken) <= 20


def test_what_is_given_back_late_is_forgotten():
    window = SlidingWindow(10)
    second = window.take(10, 0.0)
    window.take(10, 100.0)
    window.give_back(10, second)
    assert window.total(100.0) == 10


def test_a_window_without_a_limit_counts_and_refuses_nothing():
    window = SlidingWindow(None)
    for _ in range(100):
        window.take(10, 1.0)
    assert (window.wait(10**9, 1.0), window.left(1.0), window.total(1.0)) == (0.0, 0, 1000)


def test_a_clock_that_goes_back_forgets_nothing():
    window = SlidingWindow(5)
    window.take(3, 1000.0)
    assert window.wait(3, 10.0) > 0
    window.take(2, 10.0)
    assert window.wait(1, 1001.0) > 0


@given(st.lists(st.tuples(st.floats(0, 5), amounts), max_size=300))
def test_the_state_of_a_window_is_bounded(wishes):
    window, now = SlidingWindow(None), 0.0
    for step, amount in wishes:
        now += step
        window.take(amount, now)
        assert len(window._taken) <= SPAN + 1


# The budget.


@given(st.integers(1, 100), st.lists(st.tuples(st.sampled_from(["take", "end"]), st.integers(0, 60), st.floats(0, 1))))
def test_parallel_requests_do_not_overshoot_a_budget(limit, wishes):
    budget, held = Budget(limit), []
    for what, amount, share in wishes:
        if what == "take" and budget.verdict(amount, 0) is Verdict.FITS:
            budget.reserve(amount)
            held.append(amount)
        elif what == "end" and held:
            reserved = held.pop(amount % len(held))
            budget.settle(reserved, int(reserved * share), 0)
        assert budget.spent + budget.reserved <= limit
        assert budget.reserved == sum(held)
    for reserved in held:
        budget.settle(reserved, 0, 0)
    assert budget.reserved == 0


def test_what_others_hold_is_told_from_what_is_spent():
    budget = Budget(10)
    budget.reserve(6)
    assert budget.verdict(4, 0) is Verdict.FITS
    assert budget.verdict(5, 0) is Verdict.HELD
    assert budget.verdict(11, 0) is Verdict.SPENT
    budget.settle(6, 10, 0)
    assert budget.verdict(0, 0) is Verdict.SPENT


def test_a_budget_is_whole_again_in_the_next_period_and_never_by_a_clock_that_goes_back():
    day = 86_400
    budget = Budget(10, "day")
    budget.settle(0, 10, 5 * day)
    assert budget.verdict(1, 6 * day - 1) is Verdict.SPENT
    assert budget.verdict(10, 6 * day) is Verdict.FITS
    budget.settle(0, 10, 6 * day)
    assert budget.verdict(1, 5 * day) is Verdict.SPENT


@given(st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)))
def test_periods_begin_at_midnight_in_utc(when):
    unix = when.replace(tzinfo=UTC).timestamp()
    day = datetime.fromtimestamp(period_start("day", unix), UTC)
    month = datetime.fromtimestamp(period_start("month", unix), UTC)
    assert (day.date(), day.hour, day.minute) == (when.date(), 0, 0)
    assert (month.year, month.month, month.day) == (when.year, when.month, 1)
    assert period_start("total", unix) == 0


@given(st.floats(0, 1e6))
def test_dollars_are_rounded_up(dollars):
    assert dollars * 1e9 <= nano_usd(dollars) < dollars * 1e9 + 1.5


@pytest.mark.parametrize("dollars", [math.nan, math.inf, -1.0])
def test_what_is_no_price_costs_nothing(dollars):
    assert nano_usd(dollars) == 0


# The account.

moves = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), steps),
        st.tuples(st.just("enter"), st.just(0)),
        st.tuples(st.just("reserve"), st.integers(0, 40)),
        st.tuples(st.just("settle"), st.integers(0, 40)),
        st.tuples(st.just("leave"), st.just(0)),
    ),
    max_size=120,
)


@given(moves)
def test_an_account_keeps_all_its_limits_and_ends_empty(wishes):
    account = Account(
        key(requests_per_minute=4, tokens_per_minute=60, max_concurrent=2, budget_tokens=300, budget_usd=2e-7)
    )
    now, entered, used, held, refused = 0.0, [], [], [], 0
    for what, number in wishes:
        try:
            match what:
                case "wait":
                    now += number
                case "enter":
                    account.enter(at(now))
                    entered.append((now, 1))
                case "reserve":
                    held.append((account.reserve(Cost(number, number), at(now)), now))
                case "settle" if held:
                    reservation, since = held.pop(number % len(held))
                    taken = min(number, reservation.cost.tokens)
                    account.settle(reservation, Cost(taken, taken), at(now))
                    used.append((since, taken))
                case "leave" if account.open:
                    account.leave()
        except InferenceError:
            refused += 1
        assert 0 <= account.open <= 2
        assert account.token_budget.spent + account.token_budget.reserved <= 300
        assert account.usd_budget.spent + account.usd_budget.reserved <= 200
    assert most_in_a_window(entered) <= 4
    assert most_in_a_window(used + [(since, reservation.cost.tokens) for reservation, since in held]) <= 60
    for reservation, _ in held:
        account.settle(reservation, Cost(), at(now))
    assert (account.token_budget.reserved, account.usd_budget.reserved, account.refused) == (0, 0, refused)


def test_each_refusal_says_what_to_do():
    account = Account(key(requests_per_minute=2, tokens_per_minute=10, max_concurrent=1, budget_tokens=15))
    account.enter(at(0))
    with pytest.raises(RequestsLimited, match="1 requests at once") as busy:
        account.enter(at(0))
    assert busy.value.retry_after == 1.0
    account.leave()
    account.enter(at(0))
    account.leave()
    with pytest.raises(RequestsLimited, match="2 requests per minute") as often:
        account.enter(at(30.5))
    assert often.value.retry_after == 30.5
    with pytest.raises(TooLargeForLimit, match="may take 11 tokens"):
        account.reserve(Cost(11), at(0))
    first = account.reserve(Cost(9), at(0))
    with pytest.raises(TokensLimited, match="has 1 left"):
        account.reserve(Cost(2), at(0))
    with pytest.raises(QuotaHeld):
        account.reserve(Cost(7), at(100))
    account.settle(first, Cost(9), at(100))
    with pytest.raises(QuotaExhausted, match="has 6 tokens left, but the request may take 7"):
        account.reserve(Cost(7), at(100))
    account.settle(account.reserve(Cost(6), at(100)), Cost(6), at(100))
    with pytest.raises(QuotaExhausted, match="used up"):
        account.enter(at(100))
    assert account.refused == 7
    assert account.open == 0


def test_who_took_more_than_reserved_pays_for_it_later():
    account = Account(key(tokens_per_minute=10, budget_tokens=100))
    account.settle(account.reserve(Cost(5), at(0)), Cost(25), at(30))
    assert account.token_budget.spent == 25
    with pytest.raises(TokensLimited):
        account.reserve(Cost(1), at(70))
    account.reserve(Cost(1), at(91))


def test_other_limits_leave_what_was_used():
    account = Account(key(requests_per_minute=5, budget_tokens=10))
    account.enter(at(0))
    account.settle(account.reserve(Cost(8), at(0)), Cost(8), at(0))
    account.change(key(requests_per_minute=1, budget_tokens=20))
    with pytest.raises(RequestsLimited):
        account.enter(at(1))
    assert account.token_budget.left(0) == 12


def test_the_headers_of_a_key():
    account = Account(key(requests_per_minute=100, tokens_per_minute=1000))
    account.requests.take(1, 10.0)
    account.tokens.take(300, 0.0)
    assert dict(limit_headers(account, 10.0)) == {
        b"x-ratelimit-limit-requests": b"100",
        b"x-ratelimit-remaining-requests": b"99",
        b"x-ratelimit-reset-requests": b"1m1s",
        b"x-ratelimit-limit-tokens": b"1000",
        b"x-ratelimit-remaining-tokens": b"700",
        b"x-ratelimit-reset-tokens": b"51s",
    }
    assert limit_headers(Account(key()), 0.0) == []


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (0.2, "1s"), (59.2, "1m0s"), (61, "1m1s"), (360, "6m0s")])
def test_durations(seconds, text):
    assert duration(seconds) == text
