"""`no_leaks` sees every task that is left, and no other."""

import pytest
import trio

from atomr_trio.testing import LeakedTasks, all_tasks, leaked_tasks, no_leaks


async def test_a_task_that_is_left_is_named_with_its_place():
    async with trio.open_nursery() as outside:
        with pytest.raises(LeakedTasks, match=r"1 left: the leak at .*test_leaks\.py:\d+ in stay"):
            async with no_leaks():
                outside.start_soon(stay, name="the leak")
        outside.cancel_scope.cancel()


async def stay():
    await trio.sleep_forever()


async def test_a_system_task_is_a_leak_too():
    leave = trio.Event()
    before = all_tasks()
    with pytest.raises(LeakedTasks, match="the leak"):
        async with no_leaks():
            task = trio.lowlevel.spawn_system_task(leave.wait, name="the leak")
    assert leaked_tasks(before) == (task,)
    leave.set()


async def test_tasks_from_before_and_tasks_that_end_are_no_leaks():
    async with trio.open_nursery() as outside:
        outside.start_soon(stay)
        async with no_leaks():
            async with trio.open_nursery() as inside:
                inside.start_soon(trio.sleep, 0)
            # On its way out when the block ends.
            outside.start_soon(trio.lowlevel.checkpoint)
        outside.cancel_scope.cancel()


async def test_an_exception_out_of_the_block_goes_on():
    async with trio.open_nursery() as outside:
        with pytest.raises(ValueError, match="own"):
            async with no_leaks():
                outside.start_soon(stay)
                raise ValueError("own")
        outside.cancel_scope.cancel()
