"""When a failed actor starts again: to the instant, counted in a window that slides, and never in the way of a stop."""

import pytest
import trio
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.actor import (
    Actor,
    ActorSystem,
    Backoff,
    ChildSpec,
    Props,
    Restart,
    Scope,
    SupervisorGaveUp,
    SupervisorStrategy,
    Terminated,
    stopping,
)

from .kit import run, settle

BACKOFFS = st.builds(
    Backoff,
    initial=st.sampled_from([0.0, 0.25, 1.0]),
    maximum=st.sampled_from([1.0, 3.0]),
    factor=st.sampled_from([1.0, 2.0]),
    jitter=st.just(0.0),
)


class Child(Actor):
    """Notes when each life begins and what it handles; the first ``world.bad_starts`` starts fail."""

    def __init__(self, name, world):
        self.name, self.world = name, world

    async def pre_start(self, ctx):
        if self.world.bad_starts:
            self.world.bad_starts -= 1
            raise OSError("not yet")
        self.world.note("start", self.name)

    async def handle(self, message, ctx):
        if isinstance(message, Exception):
            raise message
        self.world.note(message, self.name)


@define
class World:
    strategy: SupervisorStrategy
    names: str = "a"
    bad_starts: int = 0
    log: list = field(factory=list)
    failure: Exception | None = None

    def note(self, *what):
        self.log.append((trio.current_time(), *what))


class Parent(Actor):
    def __init__(self, world, restart=Restart.TRANSIENT):
        self.world, self.restart = world, restart
        self.supervisor_strategy = world.strategy

    async def pre_start(self, ctx):
        for name in self.world.names:
            props = Props(factory=lambda name=name: Child(name, self.world))
            await ctx.start(ChildSpec(id=name, props=props, restart=self.restart))


class Watcher(Actor):
    def __init__(self, ref, world):
        self.ref, self.world = ref, world

    async def pre_start(self, ctx):
        ctx.watch(self.ref)

    async def on_terminated(self, terminated: Terminated, ctx):
        self.world.failure = terminated.failure


def children(system):
    """Return the snapshots of the supervisor's children."""
    return system.tree().children[0].children


async def open_family(system, world):
    parent = await system.actor_of(Props(factory=lambda: Parent(world)), "p")
    await system.actor_of(Props(factory=lambda: Watcher(parent, world)), "w")
    return parent, {name: system.lookup(f"/p/{name}") for name in world.names}


@define
class Model:
    """One child: the restarts in the window, and when the pause under way ends."""

    strategy: SupervisorStrategy
    window: list = field(factory=list)
    pause_ends: float | None = None
    bad_starts: int = 0
    alive: bool = True
    gave_up: bool = False
    queued: list = field(factory=list)
    log: list = field(factory=list)

    def crash(self, now):
        self.window = [at for at in self.window if now - at < self.strategy.within]
        if len(self.window) >= self.strategy.max_restarts:
            self.alive, self.gave_up = False, True
            return
        backoff = self.strategy.backoff
        delay = 0.0 if backoff is None else min(backoff.initial * backoff.factor ** len(self.window), backoff.maximum)
        self.window.append(now)
        self.pause_ends = now + delay
        self.pass_time(now)

    def pass_time(self, to):
        while self.alive and self.pause_ends is not None and self.pause_ends <= to:
            now, self.pause_ends = self.pause_ends, None
            if self.bad_starts:
                self.bad_starts -= 1
                self.crash(now)
            else:
                self.log += [(now, "start", "a"), *((now, mail, "a") for mail in self.queued)]
                self.queued = []

    def tell(self, now, mail):
        if self.pause_ends is not None:
            self.queued.append(mail)
        else:
            self.log.append((now, mail, "a"))


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("crash"), st.sampled_from([0, 0, 0, 1, 3])),
        st.tuples(st.just("advance"), st.integers(1, 5)),
        st.tuples(st.just("mail"), st.none()),
        st.tuples(st.just("stop"), st.none()),
    ),
    max_size=18,
)


@settings(max_examples=180)
@given(
    operations=OPERATIONS,
    max_restarts=st.integers(0, 4),
    within=st.integers(2, 6),
    backoff=st.none() | BACKOFFS,
    _seed=st.random_module(),
)
def test_restarts_come_at_the_models_instants(operations, max_restarts, within, backoff, _seed):
    """Whole seconds make restarts that lie exactly a window apart common; failed starts count like any failure."""
    strategy = SupervisorStrategy(max_restarts=max_restarts, within=within, backoff=backoff)
    world, model = World(strategy), Model(strategy, log=[(0.0, "start", "a")])

    async def scenario():
        async with ActorSystem.create("t", supervisor_strategy=stopping()) as system:
            parent, refs = await open_family(system, world)
            for i, (what, argument) in enumerate([*operations, ("advance", 10)]):
                now = trio.current_time()
                if what == "advance":
                    await trio.sleep(argument)
                    model.pass_time(now + argument)
                elif what == "stop":
                    refs["a"].stop()
                    model.alive = False
                elif what == "mail":
                    refs["a"].tell(i)
                    if model.alive:
                        model.tell(now, i)
                elif model.alive and model.pause_ends is None:
                    world.bad_starts = model.bad_starts = argument
                    refs["a"].tell(ValueError(i))
                    model.crash(now)
                await settle()
                assert world.log == model.log
                assert world.bad_starts == model.bad_starts or not model.alive
                assert refs["a"].is_terminated is not model.alive
                assert parent.is_terminated is model.gave_up
                if model.gave_up:
                    assert isinstance(world.failure, SupervisorGaveUp)
                    assert (world.failure.path, world.failure.child) == ("/p", "/p/a")
                    assert isinstance(world.failure.__cause__, ValueError | OSError)
                    return

    run(scenario)


@settings(max_examples=100)
@given(
    scope=st.sampled_from(Scope),
    backoff=BACKOFFS,
    crashes=st.lists(
        st.tuples(st.sampled_from("abcd"), st.none() | st.sampled_from("abcd"), st.booleans()), max_size=6
    ),
    _seed=st.random_module(),
)
def test_a_group_waits_down_and_comes_up_together_in_start_order(scope, backoff, crashes, _seed):
    """After the pause, that is; one of them may be stopped in it, for good, and the others come up without it."""
    strategy = SupervisorStrategy(scope=scope, max_restarts=100, within=1000, backoff=backoff)
    world, expected = World(strategy, "abcd"), [(0.0, "start", name) for name in "abcd"]

    async def scenario():
        async with ActorSystem.create("t", supervisor_strategy=stopping()) as system:
            parent, refs = await open_family(system, world)
            alive = list("abcd")
            done = 0
            for name, stopped, stop_parent in crashes:
                if name not in alive:
                    continue
                now, group = trio.current_time(), [name]
                if scope is not Scope.ONE_FOR_ONE:
                    group = list(alive) if scope is Scope.ONE_FOR_ALL else alive[alive.index(name) :]
                delay = min(backoff.initial * backoff.factor**done, backoff.maximum)
                refs[name].tell(ValueError())
                await settle()
                if delay:
                    states = {node.path[-1]: node.state for node in children(system)}
                    assert {each for each, state in states.items() if state == "waiting"} == set(group)
                    if stop_parent and done > 1:
                        parent.stop()
                        await parent.wait_terminated()
                        assert trio.current_time() == now
                        break
                    if stopped in alive:
                        refs[stopped].stop()
                        await settle()
                        assert refs[stopped].is_terminated
                        alive.remove(stopped)
                done += 1
                await trio.sleep_until(now + delay)
                await settle()
                expected.extend((now + delay, "start", each) for each in group if each in alive)
                assert world.log == expected
                await trio.sleep(1)
        assert world.log == expected

    run(scenario)


@settings(max_examples=30)
@given(jitter=st.sampled_from([0.25, 0.5, 1.0]), seed=st.integers(0, 100), _seed=st.random_module())
def test_jitter_shortens_the_pauses_at_random_and_a_seed_repeats_them(jitter, seed, _seed):
    backoff = Backoff(initial=1.0, maximum=8.0, jitter=jitter)

    async def pauses(seed):
        strategy = SupervisorStrategy(max_restarts=100, within=10_000, backoff=backoff)
        world = World(strategy)
        async with ActorSystem.create("t", supervisor_strategy=stopping(), seed=seed) as system:
            _, refs = await open_family(system, world)
            found = []
            for _ in range(6):
                before = trio.current_time()
                refs["a"].tell(ValueError())
                await trio.sleep(20)
                found.append(world.log[-1][0] - before)
            return found

    one, again, other = (run(pauses, each) for each in (seed, seed, seed + 1))
    full = [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert one == pytest.approx(again, abs=1e-6)
    assert one != pytest.approx(other, abs=1e-6)
    for pause, longest in zip(one, full, strict=True):
        assert longest * (1 - jitter) - 1e-6 <= pause <= longest + 1e-6
    shares = [pause / longest for pause, longest in zip(one, full, strict=True)]
    assert max(shares) - min(shares) > 1e-3


CRASHES = st.lists(st.tuples(st.integers(0, 12), st.sampled_from("abcd")), max_size=12)


@settings(max_examples=120)
@given(
    scope=st.sampled_from(Scope),
    backoff=st.none() | BACKOFFS,
    crashes=CRASHES,
    bad_starts=st.integers(0, 3),
    _seed=st.random_module(),
)
def test_failures_at_any_time_leave_a_whole_family(scope, backoff, crashes, bad_starts, _seed):
    """Failures in the same instant, in the pauses and while siblings are taken down: in the end everyone is up."""
    strategy = SupervisorStrategy(scope=scope, max_restarts=1000, within=1000, backoff=backoff)
    world = World(strategy, "abcd")

    async def scenario():
        async with ActorSystem.create("t", supervisor_strategy=stopping()) as system:
            parent, refs = await open_family(system, world)
            world.bad_starts = bad_starts

            async def crash(after, name):
                await trio.sleep(after / 4)
                refs[name].tell(ValueError())

            async with trio.open_nursery() as nursery:
                for after, name in crashes:
                    nursery.start_soon(crash, after, name)
            await trio.sleep(1000)
            assert [(node.path, node.state) for node in children(system)] == [
                (f"/p/{name}", "running") for name in "abcd"
            ]
            for name in "abcd":
                refs[name].tell("there")
            await settle()
            assert sorted(event[1:] for event in world.log[-4:]) == [("there", name) for name in "abcd"]
            assert not parent.is_terminated

    run(scenario)
