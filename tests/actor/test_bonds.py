"""Bonds between actors: questions in a circle, death pacts, kept stashes, pools that stop together, own deadlines."""

import math

import pytest
import trio
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.actor import (
    Actor,
    ActorSystem,
    AskCycle,
    AskTimeout,
    ChildEscalated,
    ChildSpec,
    DeathPact,
    OverflowStrategy,
    Props,
    Request,
    SupervisorGaveUp,
    dynamic_pool,
    one_for_one,
    stopping,
)

from .kit import Block, Crash, Spawn, recorder


@frozen
class Forward(Request):
    """Ask the first of them for the rest."""

    refs: tuple
    seconds: float = 60


class Forwarder(Actor):
    async def handle(self, message, ctx):
        if not message.refs:
            return ctx.path
        try:
            return await message.refs[0].ask(Forward(message.refs[1:], message.seconds), timeout=message.seconds)
        except AskCycle as cycle:
            return cycle


async def forwarders(system, count):
    return [await system.actor_of(Props(factory=Forwarder), name) for name in "abcdef"[:count]]


@given(route=st.lists(st.integers(0, 4), min_size=1, max_size=8), _seed=st.random_module())
async def test_a_question_is_refused_at_once_when_it_comes_back_to_one_who_waits(route, _seed):
    async with ActorSystem.create("t") as system:
        refs = await forwarders(system, 5)
        answer = await refs[route[0]].ask(Forward(tuple(refs[stop] for stop in route[1:])), timeout=1)
    again = next((place for place, stop in enumerate(route) if stop in route[:place]), None)
    if again is None:
        assert answer == f"/{'abcde'[route[-1]]}"
    else:
        asked = route[route.index(route[again]) : again + 1]
        assert answer.chain == tuple(f"/{'abcde'[stop]}" for stop in asked)
        assert str(answer) == f"asking {answer.path} would wait forever: {' asks '.join(answer.chain)}"


async def test_who_has_given_up_waiting_may_be_asked(autojump_clock):
    class Late(Actor):
        async def handle(self, message, ctx):
            await trio.sleep(5)
            return await message.refs[0].ask(Forward(()), timeout=1)

    async with ActorSystem.create("t") as system:
        (first,) = await forwarders(system, 1)
        late = await system.actor_of(Props(factory=Late), "late")

        async def ask_first():
            with pytest.raises(AskTimeout):
                await late.ask(Forward((first,)), timeout=2)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask_first)
        assert await late.ask(Forward((first,)), timeout=60) == "/a"


async def test_a_task_of_an_actor_may_ask_it(autojump_clock):
    class Own(Actor):
        async def handle(self, message, ctx):
            if message.refs:
                ctx.spawn_task(self.later, message.refs[0], ctx.defer_reply())
                return None
            return "free"

        async def later(self, ref, slot):
            slot.resolve(await ref.ask(Forward(()), timeout=1))

    async with ActorSystem.create("t") as system:
        own = await system.actor_of(Props(factory=Own), "own")
        assert await own.ask(Forward((own,)), timeout=2) == "free"


class Bound(Actor):
    def __init__(self, partner, notices):
        self.partner, self.notices = partner, notices

    async def pre_start(self, ctx):
        if not self.partner.is_terminated:
            ctx.watch(self.partner, death_pact=True)

    async def on_terminated(self, terminated, ctx):
        self.notices.append(terminated)


async def test_a_death_pact_fails_the_one_who_is_left_instead_of_telling_it():
    async with ActorSystem.create("t", supervisor_strategy=stopping()) as system:
        partner = await system.actor_of(recorder("p", []), "p")
        notices = []
        bound = await system.actor_of(Props(factory=lambda: Bound(partner, notices)), "bound")
        partner.stop()
        await bound.wait_terminated()
    assert notices == []


async def test_a_death_pact_says_who_died_of_what():
    error = ValueError("bad")
    with pytest.raises(ChildEscalated) as raised:
        async with ActorSystem.create("t") as system:
            keeper = await system.actor_of(recorder("k", [], strategy=stopping()), "k")
            partner = await keeper.ask(Spawn(recorder("p", []), "p"), timeout=1)
            await system.actor_of(Props(factory=lambda: Bound(partner, [])), "bound")
            partner.tell(Crash(error))
            await trio.sleep_forever()
    pact = raised.value.__cause__
    assert isinstance(pact, DeathPact)
    assert (pact.path, pact.partner, pact.__cause__) == ("/bound", "/k/p", error)
    assert str(pact) == "/bound does not live on without /k/p: failed"


class Keeper(Actor):
    """Stashes numbers until it is told to fail or to give them back."""

    def __init__(self, got):
        self.got = got

    async def handle(self, message, ctx):
        if message == "fail":
            raise ValueError
        if message == "unstash":
            ctx.become(self.note)
            ctx.unstash()
        else:
            ctx.stash()

    async def note(self, message, ctx):
        self.got.append(message)


@pytest.mark.parametrize("keep", [True, False])
async def test_a_kept_stash_survives_a_restart_and_no_stop(keep):
    got = []
    async with ActorSystem.create("t", supervisor_strategy=one_for_one()) as system:
        props = Props(factory=lambda: Keeper(got), keep_stash=keep)
        ref = await system.actor_of(props, "a")
        for message in (1, 2, "fail", 3, "fail", "unstash", 4):
            ref.tell(message)
        await trio.testing.wait_all_tasks_blocked()
        assert got == ([1, 2, 3, 4] if keep else [4])
        lost = [letter.message for letter in system.dead_letters.recent]
        assert lost == ([] if keep else [1, 2, 3])
        other = await system.actor_of(props, "b")
        other.tell(5)
        await trio.testing.wait_all_tasks_blocked()
    assert [letter.message for letter in system.dead_letters.recent][-1] == 5


async def test_a_dynamic_pool_stops_together(autojump_clock):
    async def hang(_ctx):
        await trio.sleep(3)

    async with ActorSystem.create("t") as system:
        children = {str(number): recorder(str(number), [], post_stop=hang) for number in range(20)}
        events = []
        pool = await system.actor_of(recorder("p", events, strategy=dynamic_pool(), children=children), "p")
        began = trio.current_time()
        pool.stop()
        await pool.wait_terminated()
        assert trio.current_time() == began + 3
        assert events == [("p", "start1"), ("p", "stop")]


@pytest.mark.parametrize(
    ("own", "props", "expected"), [(None, 2.0, 2), (1.0, 2.0, 1), (0.0, 2.0, 0), (math.inf, 2.0, 7)]
)
async def test_a_child_spec_has_the_last_word_on_the_deadline(own, props, expected, autojump_clock):
    entered = trio.Event()

    class Busy(Actor):
        async def handle(self, message, ctx):
            entered.set()
            await trio.sleep(7)

    async with ActorSystem.create("t") as system:
        spec = ChildSpec(id="a", props=Props(factory=Busy, shutdown=props), shutdown=own)
        ref = await system.start(spec)
        ref.tell("x")
        await entered.wait()
        began = trio.current_time()
        ref.stop()
        await ref.wait_terminated()
        assert trio.current_time() == began + expected


async def test_giving_up_tells_the_restarts_that_led_to_it(autojump_clock):
    with pytest.raises(SupervisorGaveUp) as gave_up:
        async with ActorSystem.create("t", supervisor_strategy=one_for_one(max_restarts=2, within=10)) as system:
            first = await system.actor_of(recorder("a", []), "a")
            second = await system.actor_of(recorder("b", []), "b")
            for ref, error in (
                (first, KeyError(1)),
                (second, KeyError(2)),
                (first, KeyError(3)),
                (second, KeyError(4)),
            ):
                ref.tell(Crash(error))
                await trio.sleep(4)
    history = [(record.at, record.child, record.failure) for record in gave_up.value.history]
    assert history == [(0, "/a", "KeyError(1)"), (4, "/b", "KeyError(2)")]


@given(capacity=st.integers(1, 4), told=st.integers(0, 9), _seed=st.random_module())
async def test_drop_head_keeps_the_newest(capacity, told, _seed):
    events, entered, leave = [], trio.Event(), trio.Event()
    async with ActorSystem.create("t") as system:
        props = recorder("a", events, capacity=capacity, overflow=OverflowStrategy.DROP_HEAD)
        ref = await system.actor_of(props, "a")
        ref.tell(Block(entered, leave))
        await entered.wait()
        for number in range(told):
            ref.tell(number)
        leave.set()
        await trio.testing.wait_all_tasks_blocked()
        lost = [letter.message for letter in system.dead_letters.recent]
    kept = [what for _, what in events if what.startswith("got")]
    assert kept == [f"got {number}" for number in range(told)[-capacity:]]
    assert lost == list(range(max(0, told - capacity)))


async def test_under_drop_head_those_who_wait_for_room_come_first():
    events, entered, leave = [], trio.Event(), trio.Event()
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(recorder("a", events, capacity=1, overflow="drop_head"), "a")
        ref.tell(Block(entered, leave))
        await entered.wait()
        ref.tell("queued")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ref.send, "waits")
            await trio.testing.wait_all_tasks_blocked()
            ref.tell("new")
            leave.set()
        await trio.testing.wait_all_tasks_blocked()
        assert [letter.message for letter in system.dead_letters.recent] == ["new"]
    assert [what for _, what in events if what.startswith("got")] == ["got queued", "got waits"]
