"""`cancel_everywhere` finds what must be found, says where, and lets pass what is right."""

from collections import Counter
from contextlib import suppress

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.testing import CancelViolation, cancel_everywhere


async def three_sleeps():
    for _ in range(3):
        await trio.sleep(1)


async def swallows():
    await trio.sleep(1)
    with suppress(trio.Cancelled):
        await trio.sleep(1)


async def swallows_in_a_child():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(swallows)


async def swallows_in_one_of_two_children():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 2)
        nursery.start_soon(swallows)


async def goes_round_in_a_circle():
    waiting = True
    while waiting:
        with suppress(trio.Cancelled):
            await trio.sleep(1)
            waiting = False


async def replaces_the_cancellation():
    try:
        await trio.sleep(1)
    except trio.Cancelled:
        raise ValueError("in the clean-up") from None


async def hangs_in_the_clean_up():
    try:
        await trio.sleep(1)
    except trio.Cancelled:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()
        raise


async def leaks():
    try:
        await trio.sleep(1)
    except trio.Cancelled:
        trio.lowlevel.spawn_system_task(trio.sleep_forever, name="the leak")
        raise


async def outlives_its_patience():
    await trio.sleep_forever()


def test_what_is_right_passes():
    async def child(scopes):
        with trio.CancelScope() as scope:
            scopes.append(scope)
            try:
                await trio.sleep(3)
            finally:
                with trio.move_on_after(1, shield=True):
                    await trio.sleep_forever()

    async def scenario():
        scopes = []
        with trio.move_on_after(60):
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(child, scopes)
                await trio.sleep(1)
                scopes[0].cancel()
                await trio.sleep(1)
                nursery.cancel_scope.cancel()
                await trio.sleep(1)

    assert cancel_everywhere(scenario).cancelled > 5


def test_each_checkpoint_is_cancelled_once():
    seen = []

    async def scenario(reached):
        seen.append(reached)
        for number in range(3):
            await trio.sleep(1)
            reached.append(number)

    report = cancel_everywhere(scenario, fresh=list)
    assert seen == [[0, 1, 2], [], [0], [0, 1]]
    assert (report.points, report.cancelled, report.completed) == (3, 3, 0)


def test_shielded_work_completes():
    async def scenario(done):
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
            done.append(True)

    def check(done):
        assert done == [True]

    assert cancel_everywhere(scenario, fresh=list, check=check).completed == 1


def test_the_tasks_below_are_counted_and_cancelled():
    async def child(counts):
        counts["begun"] += 1
        try:
            await trio.sleep(5)
        finally:
            counts["ended"] += 1

    async def scenario(counts):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(child, counts)
        counts["completed"] += 1

    runs = []

    def check(counts):
        # A child that was not scheduled yet starts all the same, and hears of it at its first checkpoint.
        assert counts["begun"] == counts["ended"] == 3
        runs.append(counts)

    report = cancel_everywhere(scenario, fresh=Counter, check=check)
    # Each child is suspended once and ends; their parent is suspended once, waiting for them.
    assert report.points == 3 * 2 + 1
    assert [counts["completed"] for counts in runs] == [1] + [0] * (report.cancelled) + [1] * report.completed


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        (swallows, "was swallowed"),
        (swallows_in_a_child, "was swallowed"),
        (swallows_in_one_of_two_children, "was swallowed"),
        (goes_round_in_a_circle, "goes round in a circle"),
        (replaces_the_cancellation, "ValueError came out: in the clean-up"),
        (hangs_in_the_clean_up, "still running 300s after it was cancelled"),
        (leaks, "tasks are left: the leak"),
        (outlives_its_patience, "still running 300s after its start"),
    ],
)
def test_what_is_wrong_is_found_and_located(scenario, said):
    with pytest.raises(CancelViolation) as caught:
        cancel_everywhere(scenario)
    violation = caught.value
    assert said in str(violation)
    if violation.point == 0:
        assert "without any cancellation" in str(violation)
        return
    assert f"only={violation.point}, seed=0" in str(violation)
    assert "test_cancel_fuzzer.py:" in violation.where
    with pytest.raises(CancelViolation) as again:
        cancel_everywhere(scenario, only=violation.point)
    assert str(again.value) == str(violation)


def test_an_exception_that_came_out_is_the_cause():
    with pytest.raises(CancelViolation) as caught:
        cancel_everywhere(replaces_the_cancellation)
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_scenario_that_fails_by_itself_is_not_cancelled_at_all():
    async def scenario():
        await trio.sleep(1)
        raise KeyError("own")

    with pytest.raises(CancelViolation, match="without any cancellation: KeyError came out") as caught:
        cancel_everywhere(scenario)
    assert caught.value.point == 0


def test_the_check_sees_the_state_of_its_own_run():
    async def scenario(held):
        held.append("lock")
        await trio.sleep(1)
        await trio.sleep(1)
        held.remove("lock")

    def check(held):
        assert held == []

    with pytest.raises(CancelViolation, match=r"checkpoint 1 of 2, .*the check failed") as caught:
        cancel_everywhere(scenario, fresh=list, check=check)
    assert isinstance(caught.value.__cause__, AssertionError)


def test_a_checkpoint_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="checkpoints 1 to 3, not 4"):
        cancel_everywhere(three_sleeps, only=4)


def test_an_interrupt_is_not_a_violation():
    async def scenario():
        await trio.sleep(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cancel_everywhere(scenario)


@given(seed=st.integers(0, 2**32))
def test_a_seed_is_a_schedule(seed):
    def order():
        steps = []

        async def child(name):
            for _ in range(3):
                await trio.lowlevel.checkpoint()
                steps.append(name)

        async def scenario():
            async with trio.open_nursery() as nursery:
                for name in "abc":
                    nursery.start_soon(child, name)

        cancel_everywhere(scenario, only=5, seed=seed)
        return steps

    assert order() == order()
