"""A client that leaves cancels what it asked for: in every phase, on every route, in every way of leaving.

The engine stands still while a client leaves, and so does the clock: what holds then, holds within a step.
"""

from contextlib import asynccontextmanager
from itertools import product

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from .leavers import BODIES, PREFILL, WORDS, Peer, PeerOfMany, body_of, soon, world

COUNTED = ("/v1/chat/completions", "/v1/completions")
PHASES = ("queued", "prefill", "decode", "recovering", "arriving")
KNOWN = (("decode", True), ("recovering", True))
"""Phases of streams in which a client has been told which is its own."""

WINDOW = 30.0

leavers = st.lists(
    st.tuples(
        st.sampled_from([(route, n) for route in BODIES for n in ((1, 3) if route in COUNTED else (1,))]),
        st.booleans(),
        st.sampled_from([(kind, way) for kind in (Peer, PeerOfMany) for way in kind.ways]),
        st.integers(0, 150),
    ),
    min_size=1,
    max_size=6,
)


@pytest.fixture
def still_clock():
    return trio.testing.MockClock()


def many(route):
    return (1, 3) if route in COUNTED else (1,)


async def bring(it, phase, peer, route, n, *, stream):
    """Have a client ask, and its request come into the phase."""
    if phase == "arriving":
        await die(it)
    await peer.ask(route, body_of(route, n, stream=stream))
    if phase == "queued":
        await soon(lambda: len(it.requests) == n)
        await trio.testing.wait_all_tasks_blocked()
        assert await it.load() == 1 + n
        return
    await soon(lambda: len(it.journalled) == n)
    if phase == "arriving":
        return
    await soon(lambda: len(it.engine.rows) == n)
    it.engine.step()
    if phase == "prefill":
        return
    for _ in range(3):
        it.engine.step()
    if stream:
        await peer.read_word()
    if phase == "recovering":
        await die(it)


async def die(it):
    sessions = it.engine.sessions
    it.engine.die()
    await soon(lambda: it.engine.sessions > sessions)
    await soon(lambda: not it.engine.rows)


async def has_left(it, phase, n, before):
    """What has to be so without any further step."""
    waiting = phase == "queued"
    await soon(lambda: not it.requests)
    await soon(lambda: len(it.journalled) == waiting)
    await soon(lambda: len(it.engine.rows) == waiting)
    assert await it.load() == (1 if waiting else 0)
    assert await it.cancelled() - before == n
    assert len(it.engine.left) == (0 if phase in ("queued", "arriving") else n)


async def is_as_ever(it, phase, occupant):
    """Nobody else has suffered, and nothing comes back."""
    if not it.engine.gate.is_set():
        it.engine.gate.set()
        await trio.testing.wait_all_tasks_blocked()
        assert not it.engine.rows
    if phase == "queued":
        told = len(occupant.tokens.token_ids)
        it.engine.step()
        assert len(occupant.tokens.token_ids) == told + 1
        return
    async with it.submit("another") as another:
        await soon(lambda: it.engine.rows)
        while not it.engine.rows["another"].done.is_set():
            it.engine.step()
        assert len((await another.collect()).token_ids) == WORDS
    await soon(lambda: not it.journalled)


@asynccontextmanager
async def company(it, phase):
    """Somebody who has the only place, where there is one."""
    if phase != "queued":
        yield None
        return
    async with it.submit("occupant") as occupant:
        await soon(lambda: it.engine.rows)
        for _ in range(PREFILL):
            it.engine.step()
        yield occupant


async def leave_one_by_one(it, phase, route, *, stream, kind=Peer):
    async with company(it, phase) as occupant:
        for way, n in product(kind.ways, many(route)):
            before = await it.cancelled()
            it.engine.left.clear()
            async with await kind.connect(it.port) as peer:
                await bring(it, phase, peer, route, n, stream=stream)
                await peer.leave(way)
                await has_left(it, phase, n, before)
                if way != "cancel":
                    await soon(lambda: not it.connections)
                await is_as_ever(it, phase, occupant)
            await soon(lambda: not it.connections)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("route", BODIES)
@pytest.mark.parametrize("phase", PHASES)
async def test_who_leaves_cancels_at_once(still_clock, monkeypatch, phase, route, stream):
    async with world(monkeypatch, slots=1 if phase == "queued" else 8) as it:
        await leave_one_by_one(it, phase, route, stream=stream)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("phase", PHASES)
async def test_over_http2_a_request_that_is_taken_back_too(still_clock, monkeypatch, phase, stream):
    async with world(monkeypatch, slots=1 if phase == "queued" else 8) as it:
        await leave_one_by_one(it, phase, "/v1/chat/completions", stream=stream, kind=PeerOfMany)


# With a window in which a client may come back.


@pytest.mark.parametrize(
    ("phase", "stream"),
    [(phase, stream) for phase in PHASES for stream in (True, False) if (phase, stream) not in KNOWN],
)
async def test_who_does_not_know_the_stream_cannot_come_back_for_it(still_clock, monkeypatch, phase, stream):
    async with world(monkeypatch, slots=1 if phase == "queued" else 8, resume_window=WINDOW) as it:
        await leave_one_by_one(it, phase, "/v1/chat/completions", stream=stream)


@pytest.mark.parametrize("route", BODIES)
@pytest.mark.parametrize("phase", [phase for phase, _ in KNOWN])
async def test_a_kept_stream_goes_on_until_its_window_is_over(still_clock, monkeypatch, phase, route):
    async with world(monkeypatch, resume_window=WINDOW) as it:
        for way, n in product(Peer.ways, many(route)):
            before = await it.cancelled()
            it.engine.left.clear()
            async with await Peer.connect(it.port) as peer:
                await bring(it, phase, peer, route, n, stream=True)
                await peer.leave(way)
                await soon(lambda: not it.connections)
                still_clock.jump(WINDOW - 1)
                await goes_on(it, phase, n)
                still_clock.jump(2)
                await has_left(it, phase, n, before)
            await is_as_ever(it, phase, None)


async def goes_on(it, phase, n):
    """Whoever has left, the engine works for him."""
    await trio.testing.wait_all_tasks_blocked()
    assert len(it.requests) == len(it.journalled) == n
    if phase == "decode":
        told = [row.told for row in it.engine.rows.values()]
        it.engine.step()
        assert [row.told for row in it.engine.rows.values()] == [one + 1 for one in told]
        assert len(told) == n


# At any moment.


@settings(max_examples=20)
@given(
    leavers=leavers,
    dies=st.none() | st.integers(0, 150),
    pace=st.integers(1, 30),
    slots=st.integers(1, 4),
    kept=st.booleans(),
    _seed=st.random_module(),
)
def test_nothing_is_left_of_whoever_leaves_at_whatever_moment(leavers, dies, pace, slots, kept, _seed):
    clock = trio.testing.MockClock()

    async def leave(it, route, stream, how, turns):
        kind, way = how
        async with await kind.connect(it.port) as peer:
            await peer.ask(route[0], body_of(*route, stream=stream))
            await pass_by(turns)
            await peer.leave(way)
            # Not closed before the server has seen it.
            await pass_by(50)

    async def compute(it):
        while True:
            await pass_by(pace)
            it.engine.step()

    async def all_leave(it):
        async with trio.open_nursery() as nursery:
            for leaver in leavers:
                nursery.start_soon(leave, it, *leaver)
            if dies is not None:
                await pass_by(dies)
                await die(it)
                it.engine.gate.set()

    async def main(it):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(compute, it)
            await all_leave(it)
            nursery.cancel_scope.cancel()
        await soon(lambda: not it.connections)
        await trio.testing.wait_all_tasks_blocked()
        clock.jump(WINDOW + 1)
        await soon(lambda: not (it.requests or it.journalled or it.engine.rows))
        assert await it.load() == 0
        await is_as_ever(it, "", None)

    async def scenario():
        with pytest.MonkeyPatch.context() as patch:
            async with world(patch, slots=slots, resume_window=WINDOW if kept else 0.0) as it:
                await main(it)

    trio.run(scenario, clock=clock)


async def pass_by(turns):
    for _ in range(turns):
        await trio.lowlevel.checkpoint()
