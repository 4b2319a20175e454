"""Groups under restart: when their members go down and come up, to the instant."""

import random

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atomr_trio.actor import (
    Actor,
    ActorSystem,
    Backoff,
    Directive,
    Props,
    one_for_all,
    one_for_one,
    rest_for_one,
    stopping,
)

from .kit import run, settle


class Member(Actor):
    """Notes with the time when it starts and ends; takes as long as it is told for either."""

    def __init__(self, name, events, slow):
        self.name, self.events, self.slow = name, events, slow

    def note(self, what):
        self.events.append((trio.current_time(), what, self.name))

    async def pre_start(self, ctx):
        self.note("start")
        await trio.sleep(self.slow.get(f"start {self.name}", 0))

    async def handle(self, message, ctx):
        raise message

    async def end(self):
        self.note("ends")
        await trio.sleep(self.slow.get(self.name, 0))
        self.note("ended")

    async def pre_restart(self, failure, ctx):
        await self.end()

    async def post_stop(self, ctx):
        await self.end()


class Parent(Actor):
    def __init__(self, strategy, names, events, slow):
        self.supervisor_strategy = strategy
        self.names, self.events, self.slow = names, events, slow

    async def pre_start(self, ctx):
        for name in self.names:
            await self.handle(name, ctx)

    async def handle(self, name, ctx):
        await ctx.spawn(Props(factory=lambda: Member(name, self.events, self.slow), shutdown=100), name)


def family(strategy, names="abc", slow=None):
    events = []
    return events, Props(factory=lambda: Parent(strategy, names, events, slow or {}), shutdown=100)


@given(slowness=st.integers(0, 5), _seed=st.random_module())
def test_the_others_go_down_after_the_one_that_failed_is_down(slowness, _seed):
    events, props = family(one_for_all(), slow={"b": slowness})

    async def scenario():
        async with ActorSystem.create("t") as system:
            await system.actor_of(props, "p")
            events.clear()
            system.lookup("/p/b").tell(ValueError())
            await trio.sleep(50)
            assert events == [
                (0, "ends", "b"),
                *[(slowness, *event) for event in [("ended", "b"), ("ends", "c"), ("ended", "c"), ("ends", "a")]],
                *[(slowness, *event) for event in [("ended", "a"), ("start", "a"), ("start", "b"), ("start", "c")]],
            ]

    run(scenario)


@given(starts=st.tuples(*[st.integers(0, 3)] * 3), failed=st.sampled_from("abc"), _seed=st.random_module())
def test_each_starts_when_the_one_before_is_up(starts, failed, _seed):
    slow = {f"start {name}": seconds for name, seconds in zip("abc", starts, strict=True)}
    events, props = family(one_for_all(), slow=slow)

    async def scenario():
        async with ActorSystem.create("t") as system:
            await system.actor_of(props, "p")
            events.clear()
            now = trio.current_time()
            system.lookup(f"/p/{failed}").tell(ValueError())
            await trio.sleep(50)
            due = [now, now + starts[0], now + starts[0] + starts[1]]
            assert [event for event in events if event[1] == "start"] == [
                (at, "start", name) for at, name in zip(due, "abc", strict=True)
            ]

    run(scenario)


@given(starting=st.integers(2, 9), _seed=st.random_module())
def test_a_start_that_the_others_wait_for_is_cut_short_by_the_next_failure(starting, _seed):
    events, props = family(one_for_all(), "ab", slow={"start b": starting})

    async def scenario():
        async with ActorSystem.create("t") as system:
            await system.actor_of(props, "p")
            began = trio.current_time()
            events.clear()
            for _ in range(2):
                system.lookup("/p/a").tell(ValueError())
                await trio.sleep(1)
            await trio.sleep(50)
            assert [event for event in events if event[1] == "start"] == [
                (began + after, "start", name) for after in (0, 1) for name in "ab"
            ]

    run(scenario)


@pytest.mark.parametrize("first", "bc")
@settings(max_examples=50)
@given(
    closing=st.integers(0, 6),
    second=st.integers(1, 2),
    initial=st.integers(4, 9),
    seed=st.integers(0, 1000),
    _seed=st.random_module(),
)
@example(closing=3, second=1, initial=8, seed=1, _seed=None)
def test_a_failure_in_a_pause_makes_it_no_shorter(first, closing, second, initial, seed, _seed):
    """The older one's failure joins the younger one's group; the longer of the two pauses counts.

    The youngest restarts alone, and pauses from when it is down.
    """
    backoff = Backoff(initial=initial, factor=1, jitter=0.5)
    draws = random.Random(seed)
    first_pause, second_pause = (backoff.delay(0, draws.random()) for _ in range(2))
    first_ends = max(first_pause, closing) if first == "b" else closing + first_pause
    due = max(first_ends, second + second_pause)
    events, props = family(rest_for_one(backoff=backoff), slow={first: closing})

    async def scenario():
        async with ActorSystem.create("t", seed=seed) as system:
            await system.actor_of(props, "p")
            events.clear()
            system.lookup(f"/p/{first}").tell(ValueError())
            await trio.sleep(second)
            system.lookup("/p/a").tell(ValueError())
            await trio.sleep(200)
            started = [event for event in events if event[1] == "start"]
            assert [name for _, _, name in started] == ["a", "b", "c"]
            assert all(at == pytest.approx(due) for at, _, _ in started)

    run(scenario)


@pytest.mark.parametrize(
    ("scope", "names", "late", "falling"), [(rest_for_one, "abc", "", "ab"), (one_for_all, "c", "d", "d")]
)
@given(
    initial=st.integers(6, 9),
    second=st.integers(1, 3),
    slow=st.fixed_dictionaries(
        {
            **{name: st.integers(0, longest) for name, longest in {"a": 12, "b": 7, "c": 5, "d": 12}.items()},
            **{f"start {name}": st.integers(0, 3) for name in "ac"},
        }
    ),
    _seed=st.random_module(),
)
def test_who_pauses_alone_joins_a_restart_of_its_group(scope, names, late, falling, initial, second, slow, _seed):
    """It starts once and in its turn: neither at once nor when its own pause would have ended.

    It is the youngest of a group, or an only child that gets a sibling. It may be closing still when that one fails,
    and be done with its pause before that one is down.
    """
    events, props = family(scope(backoff=Backoff(initial=initial, factor=1, jitter=0)), names, slow)

    async def scenario():
        async with ActorSystem.create("t", supervisor_strategy=stopping()) as system:
            parent = await system.actor_of(props, "p")
            began = trio.current_time()
            system.lookup("/p/c").tell(ValueError())
            await settle()
            for name in late:
                parent.tell(name)
            await trio.sleep(second)
            events.clear()
            system.lookup(f"/p/{falling[0]}").tell(ValueError())
            await trio.sleep(60)
            now, expected = began + second, []
            for name in falling:
                expected += [(now, "ends", name), (now + slow[name], "ended", name)]
                now = max(now + slow[name], began + slow["c"])
            now = max(now, began + slow["c"] + initial, began + second + initial)
            for name in names + late:
                expected.append((now, "start", name))
                now += slow.get(f"start {name}", 0)
            assert [event for event in events if event[1:] != ("ended", "c")] == expected

    run(scenario)


@given(
    stops=st.booleans(),
    second=st.integers(1, 3),
    slow=st.fixed_dictionaries({name: st.integers(0, longest) for name, longest in {"a": 12, "b": 7, "c": 5}.items()}),
    _seed=st.random_module(),
)
def test_who_pauses_alone_is_stopped_with_its_group(stops, second, slow, _seed):
    """It does not start for that; neither when it is stopped itself, and the others do not wait for its pause then."""
    strategy = rest_for_one({KeyError: Directive.STOP}, backoff=Backoff(initial=6, factor=1, jitter=0))
    events, props = family(strategy, slow=slow)

    async def scenario():
        async with ActorSystem.create("t") as system:
            await system.actor_of(props, "p")
            refs = {name: system.lookup(f"/p/{name}") for name in "abc"}
            refs["c"].tell(ValueError())
            await trio.sleep(second)
            events.clear()
            refs["a"].tell(ValueError() if stops else KeyError())
            await settle()
            if stops:
                refs["c"].stop()
            await refs["c"].wait_terminated()
            assert trio.current_time() == max(second, slow["c"])
            await trio.sleep(60)
            due = max(second + 6, max(second + slow["a"], slow["c"]) + slow["b"])
            assert [(at, name) for at, what, name in events if what == "start"] == [
                (due, name) for name in "ab" if stops
            ]
            assert refs["a"].is_terminated is not stops

    run(scenario)


@pytest.mark.parametrize("strategy", [one_for_all, rest_for_one])
@given(closing=st.integers(1, 9), second=st.integers(0, 8), which=st.sampled_from("bc"), _seed=st.random_module())
def test_who_is_to_be_stopped_with_its_group_does_not_restart_for_a_failure_of_its_own(
    strategy, closing, second, which, _seed
):
    """Its turn has not come, for the one that failed first is still closing: the verdict on the group stands."""
    events, props = family(strategy({KeyError: Directive.STOP}), slow={"a": closing})

    async def scenario():
        async with ActorSystem.create("t") as system:
            await system.actor_of(props, "p")
            refs = {name: system.lookup(f"/p/{name}") for name in "abc"}
            events.clear()
            refs["a"].tell(KeyError())
            await trio.sleep(min(second, closing - 0.5))
            refs[which].tell(ValueError())
            await trio.sleep(60)
            assert [name for _, what, name in events if what == "start"] == []
            assert [name for _, what, name in events if what == "ended"].count(which) == 1
            assert all(ref.is_terminated for ref in refs.values())

    run(scenario)


@given(failure=st.sampled_from([KeyError(), ValueError()]), closing=st.integers(0, 12), _seed=st.random_module())
def test_who_fails_in_the_pause_of_a_group_takes_the_others_down_at_once(failure, closing, _seed):
    """Nobody runs on until the pause is over; who is stopped goes in its turn, whether it was down already or not."""
    strategy = rest_for_one({KeyError: Directive.STOP}, backoff=Backoff(initial=50))
    events, props = family(strategy, "abcd", slow={"a": closing})
    gone = []

    async def scenario():
        async with ActorSystem.create("t") as system, trio.open_nursery() as nursery:
            await system.actor_of(props, "p")

            async def note_end(name):
                await system.lookup(f"/p/{name}").wait_terminated()
                gone.append((trio.current_time(), name))

            for name in "abcd":
                nursery.start_soon(note_end, name)
            system.lookup("/p/c").tell(ValueError())
            await settle()
            system.lookup("/p/a").tell(failure)
            await trio.sleep(20)
            assert (closing, "ends", "b") in events
            assert gone == [(closing, name) for name in ("adcb" if isinstance(failure, KeyError) else "")]
            nursery.cancel_scope.cancel()

    run(scenario)


@pytest.mark.parametrize("scope", [one_for_all, rest_for_one])
@given(stops_at=st.integers(1, 3), _seed=st.random_module())
def test_nobody_starts_again_once_the_parent_stops(scope, stops_at, _seed):
    """A late child takes its time to stop, and the pause of the others is over meanwhile."""
    strategy = scope(backoff=Backoff(initial=5, jitter=0))
    events, props = family(strategy, slow={"late": 20})

    async def scenario():
        async with ActorSystem.create("t") as system:
            parent = await system.actor_of(props, "p")
            system.lookup("/p/a").tell(ValueError())
            await settle()
            parent.tell("late")
            await trio.sleep(stops_at)
            events.clear()
            parent.stop()
            await parent.wait_terminated()
            assert trio.current_time() == stops_at + 20
            assert events == [(stops_at, "ends", "late"), (stops_at + 20, "ended", "late")]

    run(scenario)


@given(closing=st.integers(2, 5), stops_at=st.integers(1, 7), _seed=st.random_module())
def test_a_stop_while_the_old_life_closes_or_in_the_pause_after_it_ends_both(closing, stops_at, _seed):
    events, props = family(one_for_one(backoff=Backoff(initial=50, jitter=0)), "a", slow={"a": closing})

    async def scenario():
        async with ActorSystem.create("t") as system:
            await system.actor_of(props, "p")
            ref = system.lookup("/p/a")
            ref.tell(ValueError())
            await trio.sleep(stops_at)
            ref.stop()
            await ref.wait_terminated()
            assert trio.current_time() == max(closing, stops_at)
            assert [what for _, what, _ in events] == ["start", "ends", "ended"]

    run(scenario)


@given(second=st.integers(1, 2), _seed=st.random_module())
def test_who_fails_while_its_group_goes_down_costs_no_further_restart(second, _seed):
    """One restart is all that the window has room for."""
    events, props = family(one_for_all(max_restarts=1), slow={"c": 3})

    async def scenario():
        async with ActorSystem.create("t", supervisor_strategy=stopping()) as system:
            parent = await system.actor_of(props, "p")
            events.clear()
            system.lookup("/p/c").tell(ValueError())
            await trio.sleep(second)
            system.lookup("/p/a").tell(ValueError())
            await trio.sleep(20)
            assert not parent.is_terminated
            assert [event for event in events if event[1] == "start"] == [(3, "start", name) for name in "abc"]

    run(scenario)
