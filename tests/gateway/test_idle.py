"""The keep-alive timer of a connection, against what it shall do."""

import pytest
import trio
import trio.testing
from hypercorn.trio.worker_context import EventWrapper
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.gateway.idle import IdleTimer

TIMEOUT = 10.0
# No sum of them is the timeout: who comes in the very moment has a test of its own.
turns = st.lists(st.tuples(st.sampled_from([3.1, 7.3, 15.7]), st.booleans()), max_size=8)


def ends_at(turns, shutdown):
    """When it should end: the first moment at which the connection has been idle long enough; ``None``: never."""
    idle_since, now, limit = 0.0, 0.0, TIMEOUT
    moments = [*turns, (1000.0, None)]
    for pause, idle in moments:
        upto = now + pause
        if idle_since is not None:
            end = min(idle_since + limit, max(idle_since, shutdown))
            if end < upto:
                return end
        now = upto
        idle_since = None if not idle else now if idle_since is None else idle_since
    return None


@given(turns, st.sampled_from([2.5, 11.5, 25.5, 10_000.0]), st.random_module())
def test_it_ends_what_is_idle_for_too_long(turns, shutdown, _seed):
    ended = []

    async def main():
        terminated = EventWrapper()
        timer = IdleTimer(TIMEOUT, terminated)
        timer.turn(idle=True)

        async def watch():
            if await timer.wait():
                ended.append(trio.current_time())

        async def end_the_server():
            await trio.sleep(shutdown)
            await terminated.set()

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            nursery.start_soon(end_the_server)
            for pause, idle in turns:
                await trio.sleep(pause)
                timer.turn(idle=idle)
            await trio.sleep(1000)
            timer.stop()
            nursery.cancel_scope.cancel(reason="enough")
        ended[:] = [at - start for at in ended]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    wanted = ends_at(turns, shutdown)
    assert ended == ([] if wanted is None else [pytest.approx(wanted)])


async def test_stop_ends_the_wait_whatever_the_connection_does(autojump_clock):
    for idle in (False, True):
        timer = IdleTimer(TIMEOUT, EventWrapper())
        timer.turn(idle=idle)
        timer.stop()
        assert not await timer.wait()


async def test_a_request_in_the_moment_of_the_end_is_served(autojump_clock):
    timer = IdleTimer(TIMEOUT, EventWrapper())
    timer.turn(idle=True)
    ended = []

    async def watch():
        ended.append(await timer.wait())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        timer._scope.cancel(reason="the deadline")
        timer.turn(idle=False)
        await trio.sleep(100)
        assert not ended
        timer.turn(idle=True)
        await trio.sleep(TIMEOUT - 1)
        assert not ended
        await trio.sleep(2)
        assert ended == [True]
