"""The manual clock stops at every deadline, in order, and nowhere else."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.testing import ManualClock

seconds = st.floats(0, 100, allow_nan=False).map(lambda s: round(s, 3))


@given(
    naps=st.lists(st.lists(seconds, max_size=4), max_size=4),
    steps=st.lists(seconds, max_size=5),
    _seed=st.random_module(),
)
def test_everything_due_runs_at_its_own_time_and_in_order(naps, steps, _seed):
    woken = []

    async def sleeper(durations):
        due = 0.0
        for duration in durations:
            due += duration
            await trio.sleep_until(due)
            woken.append((due, trio.current_time()))

    async def main():
        clock = ManualClock()
        assert trio.lowlevel.current_clock() is not clock

    async def scenario(clock):
        async with trio.open_nursery() as nursery:
            for durations in naps:
                nursery.start_soon(sleeper, durations)
            for step in steps:
                await clock.advance(step)
                now = trio.current_time()
                assert all(due <= now for due, _ in woken)
                expected = [sum_to for durations in naps for sum_to in _sums(durations) if sum_to <= now]
                assert sorted(due for due, _ in woken) == sorted(expected)
            nursery.cancel_scope.cancel()
        assert trio.current_time() == pytest.approx(sum(steps))

    clock = ManualClock()
    trio.run(scenario, clock, clock=clock)
    assert all(at == pytest.approx(due) for due, at in woken)
    assert [due for due, _ in woken] == sorted(due for due, _ in woken)


def _sums(durations):
    total, sums = 0.0, []
    for duration in durations:
        total += duration
        sums.append(total)
    return sums


async def test_a_task_that_sleeps_again_is_woken_each_time(mock_clock):
    beats = []

    async def heart():
        while True:
            await trio.sleep(1)
            beats.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(heart)
        await mock_clock.advance(3.5)
        assert beats == [1, 2, 3]
        mock_clock.jump(10)
        await mock_clock.advance(0)
        assert beats == [1, 2, 3, 13.5]
        nursery.cancel_scope.cancel()


async def test_time_stands_still_otherwise(mock_clock):
    with trio.move_on_after(0.001):
        for _ in range(100):
            await trio.lowlevel.checkpoint()
        assert trio.current_time() == 0
        return
    pytest.fail("time went on")


@pytest.mark.parametrize("step", [-1, float("inf"), float("nan")])
async def test_time_runs_forward_only(mock_clock, step):
    with pytest.raises(ValueError, match="cannot advance"):
        await mock_clock.advance(step)
