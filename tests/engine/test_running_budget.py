"""Fewer at once after running out of memory, and more again when that is over."""

from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.engine.running_budget import RunningBudget


def steps_until(budget, allowed):
    for steps in range(1, 100_000):
        budget.landed()
        if budget.allowed == allowed:
            return steps
    raise AssertionError("never")


def test_half_of_those_who_ran_may_run_and_in_time_all_again():
    budget = RunningBudget(32)
    assert budget.exhausted(20)
    assert budget.allowed == 10
    first = steps_until(budget, 20)
    assert steps_until(budget, 32) == first
    # It was too early: the next time it takes longer.
    assert budget.exhausted(32)
    assert steps_until(budget, 32) > first


def test_one_alone_gets_a_second_chance_and_no_third_in_a_row():
    budget = RunningBudget(32)
    assert budget.exhausted(1)
    budget.landed()
    assert budget.exhausted(1)
    assert not budget.exhausted(1)


@given(most=st.integers(1, 64), events=st.lists(st.none() | st.integers(1, 64), max_size=200))
def test_at_least_one_may_run_and_never_more_than_the_most(most, events):
    budget = RunningBudget(most)
    for running in events:
        if running is None:
            budget.landed()
        else:
            before = budget.allowed
            budget.exhausted(min(running, before))
            assert budget.allowed <= max(1, before // 2)
        assert 1 <= budget.allowed <= most
