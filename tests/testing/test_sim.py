"""The simulated world: all chance from one seed, errors that say how to repeat them, and no scenario that hangs."""

import random

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.actor import Actor, Props, Request
from atomr_trio.testing import InjectedFault, Odds, SimWorld, WorldStuck


class Ping(Request[int]):
    pass


class Gambler(Actor):
    async def handle(self, message, ctx):
        await ctx.faults.reach("gamble")
        await trio.sleep(random.random())
        return ctx.system.random.getrandbits(16)


async def game(world):
    """Ask three actors by several clients; chance is everywhere."""
    async with world.system() as system:
        refs = [await system.actor_of(Props(factory=Gambler), str(number)) for number in range(3)]

        async def client(name):
            for _ in range(4):
                await trio.sleep(world.random.random())
                world.record((name, await world.random.choice(refs).ask(Ping(), timeout=60)))

        async with trio.open_nursery() as nursery:
            for name in range(3):
                nursery.start_soon(client, name)
    return world.history.digest()


@settings(max_examples=30)
@given(seed=st.integers(0, 2**64))
def test_a_seed_is_one_world(seed):
    odds = Odds(delay=0.5, max_delay=2.0)
    assert SimWorld(seed, odds=odds).run(game) == SimWorld(seed, odds=odds).run(game)
    assert SimWorld(seed).run(game) != SimWorld(seed + 1).run(game)


def test_faults_happen_where_the_odds_say_so():
    async def scenario(world):
        async with world.system():
            with pytest.raises(InjectedFault):
                await world.faults.reach("certain")
            await world.faults.reach("elsewhere")

    SimWorld(1, points={"certain": Odds(crash=1.0)}).run(scenario)


def test_a_failure_says_how_to_repeat_it():
    async def unlucky(world):
        await trio.sleep(1)
        raise KeyError("lost")

    with pytest.raises(KeyError) as caught:
        SimWorld(seed=123).run(unlucky)
    (note,) = caught.value.__notes__
    assert "seed 123; SimWorld(seed=123).run(" in note
    assert "unlucky) repeats it" in note


def test_a_world_has_one_run():
    async def nothing(world):
        pass

    world = SimWorld(4)
    world.run(nothing)
    with pytest.raises(RuntimeError, match="had its run"):
        world.run(nothing)


@pytest.mark.parametrize("shielded", [False, True])
def test_a_scenario_that_hangs_is_told_where(shielded):
    async def hangs(world):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 30)
            with trio.CancelScope(shield=shielded):
                await trio.Event().wait()

    with pytest.raises(WorldStuck, match="not over after 100 virtual seconds") as caught:
        SimWorld(5, horizon=100).run(hangs)
    assert any("hangs" in task for task in caught.value.tasks)
    assert "seed 5" in caught.value.__notes__[0]


def test_the_module_random_is_seeded_and_given_back():
    async def draw(world):
        return random.random()

    state = random.getstate()
    assert SimWorld(6).run(draw) == SimWorld(6).run(draw) != SimWorld(7).run(draw)
    assert random.getstate() == state


def test_time_is_virtual_and_begins_at_zero():
    async def sleeper(world):
        await trio.sleep(1000)
        world.record("woke")
        return world.now

    world = SimWorld(8)
    assert world.run(sleeper) == 1000
    assert [(entry.n, entry.at, entry.what) for entry in world.history] == [(0, 1000.0, "woke")]
    assert len(world.history.of(str)) == len(world.history) == 1


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32), data=st.binary(max_size=300), max_delay=st.sampled_from([0.0, 1.0]))
def test_a_stream_delivers_every_byte_in_order(seed, data, max_delay):
    async def scenario(world):
        ours, theirs = world.stream_pair(max_delay=max_delay)
        got = bytearray()

        async def read():
            async for piece in theirs:
                got.extend(piece)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await ours.send_all(data)
            await ours.send_eof()
        await ours.aclose()
        await theirs.aclose()
        return bytes(got)

    assert SimWorld(seed).run(scenario) == data


@settings(max_examples=50)
@given(seed=st.integers(0, 2**32))
def test_a_torn_stream_breaks_at_both_ends(seed):
    async def scenario(world):
        ours, theirs = world.stream_pair(max_delay=1.0, tear=1.0)

        async def read():
            with pytest.raises(trio.BrokenResourceError):
                await theirs.receive_some()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            with pytest.raises(trio.BrokenResourceError):
                await ours.send_all(b"never arrives")
        with pytest.raises(trio.BrokenResourceError):
            await theirs.send_all(b"nor does this")
        await ours.aclose()
        await theirs.aclose()

    SimWorld(seed).run(scenario)


async def test_streams_keep_trios_contract(autojump_clock):
    async def make():
        return SimWorld(9).stream_pair()

    await trio.testing.check_half_closeable_stream(make, None)
