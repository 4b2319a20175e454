"""Faults: the same for the same seed, exactly those of the script, and none where nothing is planned."""

import random

import pytest
import trio
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.actor import Actor, ActorFailed, ActorSystem, AskTimeout, Faults, Props, Request, stopping
from atomr_trio.testing import (
    Cancel,
    Crash,
    Delay,
    Drop,
    FaultPlan,
    FaultRecord,
    FaultScript,
    InjectedFault,
    Odds,
    SeededFaults,
    cancellable,
    with_faults,
)

shares = st.lists(st.floats(0, 1), min_size=4, max_size=4).map(
    lambda raw: [share / max(1.0, sum(raw) + 1e-9) for share in raw]
)
odds = st.builds(
    lambda split, drop, most: Odds(crash=split[0], delay=split[1], cancel=split[2], drop=drop, max_delay=most),
    shares,
    st.floats(0, 1),
    st.floats(0, 10),
)
visits = st.lists(st.tuples(st.sampled_from(["a.read", "a.write", "b"]), st.booleans()), max_size=30)


async def visit_all(faults, visited):
    """Go to points one after the other, and return what happened at each."""
    fates = []
    for point, sends in visited:
        began = trio.current_time()
        with cancellable() as block:
            if sends:
                fates.append(faults.drops(point))
                continue
            try:
                await faults.reach(point)
            except InjectedFault as fault:
                fates.append(("crash", fault.point, fault.visit))
            else:
                fates.append(("passed", trio.current_time() - began))
        if block.cancelled_caught:
            fates.append("cancelled")
    return fates


def run(main, *args):
    return trio.run(main, *args, clock=trio.testing.MockClock(autojump_threshold=0))


@given(seed=st.integers(), default=odds, visited=visits)
def test_the_same_seed_does_the_same(seed, default, visited):
    first, second = SeededFaults(seed, default), SeededFaults(seed, default)
    assert run(visit_all, first, visited) == run(visit_all, second, visited)
    assert first.journal == second.journal


@given(seed=st.integers(), default=odds, visited=visits, shuffler=st.randoms(use_true_random=False))
def test_the_fate_of_a_visit_does_not_depend_on_visits_elsewhere(seed, default, visited, shuffler):
    first, second = SeededFaults(seed, default), SeededFaults(seed, default)
    run(visit_all, first, visited)
    # The same visits in another order of points, each point's own order kept by their counting.
    run(visit_all, second, shuffler.sample(visited, len(visited)))
    assert sorted(map(repr, first.journal)) == sorted(map(repr, second.journal))


@given(seed=st.integers(), visited=visits)
def test_without_odds_nothing_happens_and_without_a_checkpoint(seed, visited):
    async def main(faults):
        with trio.CancelScope() as scope:
            scope.cancel()
            for point, sends in visited:
                assert not (sends and faults.drops(point))
                await faults.reach(point)
        assert not scope.cancelled_caught

    for faults in (Faults(), SeededFaults(seed), FaultScript({})):
        run(main, faults)


@given(seed=st.integers(), default=odds, visited=visits)
def test_disarmed_nothing_happens(seed, default, visited):
    faults = SeededFaults(seed, default, armed=False)
    run(visit_all, faults, visited)
    assert faults.journal == []


def test_the_odds_are_what_is_drawn():
    plan = FaultPlan(1, Odds(crash=0.25, delay=0.25, cancel=0.25, drop=0.5, max_delay=2))
    drawn = [plan.at("x", visit) for visit in range(1, 4001)]
    for kind in (Crash, Delay, Cancel, type(None)):
        assert 900 < sum(isinstance(action, kind) for action in drawn) < 1100
    delays = [action.seconds for action in drawn if isinstance(action, Delay)]
    assert 0 <= min(delays) < 0.1 < 1.9 < max(delays) <= 2
    assert 1900 < sum(plan.drops("x", visit) for visit in range(1, 4001)) < 2100


def test_points_visits_and_seeds_have_fates_of_their_own():
    odds = Odds(crash=0.5, drop=0.5)

    def fates(seed, point):
        plan = FaultPlan(seed, odds)
        reached = tuple(plan.at(point, visit) is None for visit in range(64))
        return reached, tuple(plan.drops(point, visit) for visit in range(64))

    different = {fate for seed in (1, 2) for point in ("x", "y") for fate in fates(seed, point)}
    assert len(different) == 8


def test_the_first_pattern_that_matches_counts():
    always, never = Odds(crash=1), Odds()
    plan = FaultPlan(0, never, {"kv.read": never, "kv.*": always})
    assert plan.at("kv.read", 1) is None
    assert plan.at("kv.write", 1) == Crash()
    assert plan.at("other", 1) is None


@pytest.mark.parametrize("wrong", [{"crash": 1.1}, {"drop": -0.1}, {"max_delay": -1}, {"crash": 0.6, "cancel": 0.6}])
def test_impossible_odds_are_refused(wrong):
    with pytest.raises(ValueError, match=r"'crash'|'drop'|'max_delay'|more than 1"):
        Odds(**wrong)


async def test_a_script_does_exactly_what_it_says(autojump_clock):
    full = OSError("disk full")
    faults = FaultScript(
        {
            ("write", 3): Crash(full),
            ("write", 4): Delay(5),
            ("read", 1): Crash(lambda: KeyError("made")),
            ("net", 2): Drop(),
            "down": Crash(),
            ("never", 1): Crash(),
        }
    )
    await faults.reach("write")
    await faults.reach("write")
    with pytest.raises(OSError, match="disk full") as caught:
        await faults.reach("write")
    assert caught.value is full
    await faults.reach("write")
    assert trio.current_time() == pytest.approx(5)
    with pytest.raises(KeyError, match="made"):
        await faults.reach("read")
    for visit in (1, 2):
        with pytest.raises(InjectedFault, match=f"injected at down, visit {visit}"):
            await faults.reach("down")
    assert [faults.drops("net") for _ in range(3)] == [False, True, False]
    assert faults.unused == (("never", 1),)
    assert faults.journal[0] == FaultRecord("write", 3, Crash(full))
    assert [(done.point, done.visit) for done in faults.journal][-1] == ("net", 2)


async def test_a_cancellation_hits_the_innermost_block_and_no_more(autojump_clock):
    faults = FaultScript({("x", 1): Cancel()})
    with cancellable() as outer:
        with cancellable() as inner:
            await faults.reach("x")
            pytest.fail("not reached")
        assert inner.cancelled_caught
        await trio.lowlevel.checkpoint()
    assert not outer.cancelled_caught


async def test_a_block_that_was_left_is_not_cancelled_any_more(autojump_clock):
    faults = FaultScript({"x": Cancel()})
    with cancellable() as outer:
        with cancellable() as inner:
            pass
        await faults.reach("x")
    assert outer.cancelled_caught
    assert not inner.cancel_called
    await faults.reach("x")


async def test_a_cancellation_reaches_out_of_an_actor_to_what_started_it(autojump_clock):
    faults = FaultScript({("Quiet.handle", 2): Cancel()})
    with cancellable() as block:
        async with ActorSystem.create("it") as system:
            ref = await system.actor_of(with_faults(Props(factory=Quiet), faults), "a")
            assert await ref.ask(Say(1), timeout=1) == 1
            await ref.ask(Say(2), timeout=1)
            pytest.fail("not reached")
    assert block.cancelled_caught
    assert ref.is_terminated


async def test_nobody_to_cancel_is_nothing_done():
    faults = FaultScript({("x", 1): Cancel()})
    await faults.reach("x")
    assert faults.journal == []
    assert faults.unused == (("x", 1),)


class Say(Request[int]):
    def __init__(self, value):
        self.value = value


class Quiet(Actor):
    """Knows nothing of faults."""

    log: list

    def __init__(self, log=None):
        self.log = [] if log is None else log
        self.supervisor_strategy = stopping()

    async def pre_start(self, ctx):
        self.log.append("start")

    async def handle(self, message, ctx):
        self.log.append(message.value)
        return message.value

    async def post_stop(self, ctx):
        self.log.append("stop")


class Plain(Quiet):
    def handle(self, message, ctx):
        return message.value


async def test_without_faults_an_actor_is_as_before(actor_system, autojump_clock):
    log = []
    ref = await actor_system.actor_of(with_faults(Props(factory=lambda: Quiet(log), capacity=7), Faults()), "a")
    plain = await actor_system.actor_of(with_faults(Props(factory=Plain), Faults()), "plain")
    assert await ref.ask(Say(3), timeout=1) == 3
    assert await plain.ask(Say(4), timeout=1) == 4
    ref.stop()
    await ref.wait_terminated()
    assert log == ["start", 3, "stop"]


def test_the_recipe_is_kept():
    props = Props(factory=Quiet, capacity=7, shutdown=2.5)
    quiet = Quiet()
    wrapped = with_faults(evolve(props, factory=lambda: quiet), Faults())
    assert (wrapped.capacity, wrapped.shutdown) == (7, 2.5)
    assert wrapped.factory().supervisor_strategy is quiet.supervisor_strategy


@pytest.mark.parametrize(
    ("point", "log"),
    [("pre_start", ["stop"]), ("handle", ["start", "stop"]), ("handled", ["start", 3, "stop"])],
)
async def test_a_crash_before_and_after_each_hook(point, log, autojump_clock):
    seen = []
    faults = FaultScript({f"quiet.{point}": Crash()})
    async with ActorSystem.create("it", supervisor_strategy=stopping()) as system:
        with pytest.raises(ActorFailed) as caught:
            ref = await system.actor_of(with_faults(Props(factory=lambda: Quiet(seen)), faults, "quiet"), "a")
            await ref.ask(Say(3), timeout=1)
    assert isinstance(caught.value.__cause__, InjectedFault)
    assert seen == log


async def test_a_crash_of_the_closing_hook_is_no_failure(actor_system, autojump_clock):
    seen = []
    faults = FaultScript({"Quiet.post_stop": Crash()})
    ref = await actor_system.actor_of(with_faults(Props(factory=lambda: Quiet(seen)), faults), "a")
    ref.stop()
    await ref.wait_terminated()
    assert seen == ["start"]
    assert faults.unused == ()


async def test_a_dropped_question_is_never_answered_and_a_dead_letter(actor_system, autojump_clock):
    faults = FaultScript({("Quiet.handle", 1): Drop()})
    ref = await actor_system.actor_of(with_faults(Props(factory=Quiet), faults), "a")
    lost = Say(1)
    with pytest.raises(AskTimeout):
        await ref.ask(lost, timeout=1)
    assert await ref.ask(Say(2), timeout=1) == 2
    (letter,) = actor_system.dead_letters.recent
    assert (letter.path, letter.message, letter.reason) == ("/a", lost, "dropped by a fault")


def test_a_plan_needs_no_loop_and_no_state():
    plan = FaultPlan(7, Odds(crash=0.5))
    order = [(point, visit) for point in "ab" for visit in range(1, 20)]
    fates = {key: plan.at(*key) for key in order}
    random.Random(1).shuffle(order)
    assert {key: plan.at(*key) for key in order} == fates
