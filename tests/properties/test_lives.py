"""One actor through many lives: which hook runs when, on which instance, whatever the hooks themselves do."""

import pytest
import trio
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.actor import (
    Actor,
    ActorEvent,
    ActorFailed,
    ActorRestarted,
    ActorStarted,
    ActorStopped,
    ActorSystem,
    ActorTerminated,
    ChildEscalated,
    Directive,
    Props,
    Request,
    escalating,
    one_for_one,
)

from .kit import all_tasks, run, settle

SHUTDOWN = 2


class Broken(Exception):
    """What a hook raises."""


class Resumable(Exception):
    pass


class Fatal(Exception):
    pass


STRATEGY = one_for_one({Resumable: Directive.RESUME, Fatal: Directive.STOP}, max_restarts=1000)


@define
class World:
    trace: list = field(factory=list)
    bad: dict = field(factory=dict)
    contexts: list = field(factory=list)
    lives: int = 0

    async def hook(self, name, life, *details):
        """Note that a hook runs, and let it misbehave once if it is to."""
        self.trace.append((name, life, *details))
        match self.bad.pop(name, None):
            case "raises":
                raise Broken(name)
            case "hangs":
                await trio.sleep_forever()


class Do(Request):
    def __init__(self, fn):
        self.fn = fn


class Leaf(Actor):
    def __init__(self, world, life):
        self.world, self.life = world, life

    async def handle(self, message, ctx):
        raise message

    async def post_stop(self, ctx):
        await self.world.hook("child post_stop", self.life)


class Life(Actor):
    supervisor_strategy = escalating()

    def __init__(self, world):
        self.world = world
        world.lives += 1
        self.life = world.lives

    async def pre_start(self, ctx):
        self.world.contexts.append(ctx)
        ctx.spawn_task(self.task, ctx)
        await ctx.spawn(Props(factory=lambda: Leaf(self.world, self.life)), "leaf")
        await self.world.hook("pre_start", self.life)

    async def task(self, ctx):
        try:
            await trio.sleep_forever()
        finally:
            self.world.trace.append(("task", self.life))

    async def handle(self, message, ctx):
        if isinstance(message, Exception):
            raise message
        return await message.fn(self, ctx)

    async def on_failure(self, failure, ctx):
        await self.world.hook("on_failure", self.life, failure)

    async def pre_restart(self, failure, ctx):
        await self.world.hook("pre_restart", self.life, failure)

    async def post_restart(self, failure, ctx):
        await self.world.hook("post_restart", self.life, failure)

    async def post_stop(self, ctx):
        await self.world.hook("post_stop", self.life)


async def fail_in_task(failure):
    await trio.lowlevel.checkpoint()
    raise failure


@define
class Model:
    """The trace that each operation must cause, in order. A failure that a hook raises is named after the hook."""

    lives: int = 1
    trace: list = field(factory=lambda: [("pre_start", 1)])

    def close(self, hook, *failure):
        life = self.lives
        self.trace += [("child post_stop", life), ("task", life)]
        if failure:
            self.trace.append(("on_failure", life, *failure))
        self.trace.append((hook, life, *failure) if hook == "pre_restart" else (hook, life))

    def restart(self, failure, bad):
        """Close, and start until a start goes well: a start that fails is a failure like any other."""
        started = False
        while not started:
            self.close("pre_restart", failure)
            self.lives += 1
            self.trace.append(("pre_start", self.lives))
            started = True
            if bad.pop("pre_start", None):
                failure, started = "pre_start", False
            else:
                self.trace.append(("post_restart", self.lives, failure))
                if bad.pop("post_restart", None):
                    failure, started = "post_restart", False


def plain(trace):
    return [tuple(str(part) if isinstance(part, Broken) else part for part in event) for event in trace]


def misbehaviour(*hooks):
    """Return which hooks misbehave once, and how. Who hangs in a start waits for a stop: there they only raise."""
    return st.fixed_dictionaries(
        {},
        optional={
            hook: st.just("raises") if hook in ("pre_start", "post_restart") else st.sampled_from(["raises", "hangs"])
            for hook in hooks
        },
    )


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["handler", "task", "resume", "resumed task"]),
        misbehaviour("on_failure", "pre_restart", "post_restart", "pre_start", "child post_stop"),
    ),
    max_size=6,
)


@settings(max_examples=150)
@given(
    operations=OPERATIONS,
    end=st.sampled_from(["stop", "fatal", "quit", "leave"]),
    bad_end=misbehaviour("on_failure", "post_stop", "child post_stop"),
    _seed=st.random_module(),
)
def test_the_hooks_of_every_life_run_in_order_and_once(operations, end, bad_end, _seed):
    """The children and tasks of a life are gone before its hooks, and these before the next life."""
    world, model, told = World(), Model(), []

    async def scenario():
        async with ActorSystem.create("t", supervisor_strategy=STRATEGY) as system:
            system.events.subscribe(ActorEvent, lambda event: told.append(event) if event.path == "/life" else None)
            ref = await system.actor_of(Props(factory=lambda: Life(world), shutdown=SHUTDOWN), "life")
            for way, bad in operations:
                world.bad = dict(bad)
                failure = Resumable() if "resume" in way else KeyError(way)
                if "task" in way:
                    await ref.ask(Do(spawn_failing(failure)), timeout=1)
                else:
                    ref.tell(failure)
                if "resume" not in way:
                    model.restart(failure, dict(bad))
                await trio.sleep(100)
                assert plain(world.trace) == model.trace
                assert sum(task.name.startswith("/life task") for task in all_tasks()) == 1
                assert await ref.ask(Do(who), timeout=1) == model.lives
                check_old_contexts(world)
            world.bad = dict(bad_end)
            failure = Fatal()
            model.close("post_stop", *([failure] if end == "fatal" else []))
            match end:
                case "stop":
                    ref.stop("wanted")
                case "quit":
                    await ref.ask(Do(quit_), timeout=1)
                case "fatal":
                    ref.tell(failure)
            if end != "leave":
                await ref.wait_terminated()
        assert plain(world.trace) == model.trace

    run(scenario)
    turns = [type(event) for event in told]
    assert turns[0] is ActorStarted
    assert turns.count(ActorRestarted) == model.lives - 1
    assert turns.index(ActorTerminated) == len(turns) - 1
    starts = [event.incarnation for event in told if isinstance(event, ActorStarted)]
    assert starts == sorted(set(starts))
    assert starts[-1] == model.lives
    assert isinstance(told[-1].failure, Fatal) is (end == "fatal")


def spawn_failing(failure):
    async def fn(_actor, ctx):
        ctx.spawn_task(fail_in_task, failure)

    return fn


async def quit_(_actor, ctx):
    ctx.stop()


async def who(actor, _ctx):
    return actor.life


def check_old_contexts(world):
    """What a former life has kept of its context is of no use any more."""
    for ctx in world.contexts[:-1]:
        for attempt in (
            lambda ctx=ctx: ctx.spawn_task(fail_in_task, KeyError()),
            lambda ctx=ctx: ctx.spawn_soon(Props(factory=lambda: Leaf(world, 0)), "late"),
            lambda ctx=ctx: ctx.timers,
        ):
            with pytest.raises(ActorStopped):
                attempt()


class Starter(Actor):
    """Starts what it is told to, and says how that went."""

    async def handle(self, message, ctx):
        return await message.fn(self, ctx)


@define
class Trial:
    """A child whose start takes so long and ends so."""

    seconds: float
    end: str
    ended: list = field(factory=list)

    def props(self):
        trial = self

        class Newborn(Actor):
            async def pre_start(self, ctx):
                await trio.sleep(trial.seconds)
                if trial.end == "raises":
                    raise Broken("start")

            async def post_stop(self, ctx):
                trial.ended.append(trio.current_time())

        return Props(factory=Newborn)


@given(
    trials=st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["well", "raises"]), st.none() | st.integers(1, 3)), max_size=5
    ),
    disturbance=st.sampled_from(["stop", "cancel"]),
    strategy=st.sampled_from([one_for_one(), one_for_one(otherwise=Directive.RESUME), escalating()]),
    _seed=st.random_module(),
)
def test_a_spawn_returns_a_started_child_or_raises_and_leaves_its_name_free(trials, disturbance, strategy, _seed):
    """A first start that fails is its spawner's to handle, whatever the strategy; one that is cut short is no more."""

    async def scenario():
        async with ActorSystem.create("t") as system:
            starter = await system.actor_of(Props(factory=lambda: supervisor(Starter, strategy)), "p")
            for i, (seconds, end, cut_after) in enumerate(trials):
                trial, begun = Trial(seconds + 1 / 2, end), trio.current_time()
                is_cut = cut_after is not None and cut_after < trial.seconds
                result = await starter.ask(Do(spawner(trial, disturbance, cut_after, system)), timeout=100)
                took = trio.current_time() - begun
                await settle()
                if is_cut:
                    assert result == ("cancelled" if disturbance == "cancel" else "stopped")
                    assert took == cut_after
                else:
                    assert took == trial.seconds
                    assert result == ("failed" if end == "raises" else "/p/c")
                lives = not is_cut and end == "well"
                assert (system.lookup("/p/c") is not None) is lives
                assert len(trial.ended) == (0 if lives else 1), i
                if lives:
                    system.lookup("/p/c").stop()
                    await settle()
                    assert len(trial.ended) == 1

    run(scenario)


def supervisor(cls, strategy):
    actor = cls()
    actor.supervisor_strategy = strategy
    return actor


def spawner(trial, disturbance, cut_after, system):
    async def fn(_actor, ctx):
        async def stop_child():
            await trio.sleep(cut_after)
            if (child := system.lookup("/p/c")) is not None:
                child.stop()

        if cut_after is not None and disturbance == "stop" and cut_after < trial.seconds:
            ctx.spawn_task(stop_child)
        deadline = cut_after if cut_after is not None and disturbance == "cancel" else 1000
        with trio.move_on_after(deadline):
            try:
                return (await ctx.spawn(trial.props(), "c")).path
            except ActorStopped as stopped:
                assert stopped.path == "/p/c"
                return "stopped"
            except ActorFailed as failed:
                assert failed.path == "/p/c"
                assert isinstance(failed.__cause__, Broken)
                return "failed"
        return "cancelled"

    return fn


@settings(max_examples=40)
@given(directive=st.sampled_from(Directive), bad_starts=st.integers(0, 3), _seed=st.random_module())
def test_a_start_that_failed_is_never_resumed(directive, bad_starts, _seed):
    """There is nothing to go on with: to resume it is to stop it, and to restart it is to try again."""
    starts = []

    class Stubborn(Actor):
        async def pre_start(self, ctx):
            starts.append(ctx.incarnation)
            if 1 < len(starts) <= 1 + bad_starts:
                raise Broken("start")

        async def handle(self, message, ctx):
            raise message

    async def scenario():
        async with ActorSystem.create("t", supervisor_strategy=one_for_one({Broken: directive})) as system:
            ref = await system.actor_of(Props(factory=Stubborn), "a")
            ref.tell(KeyError())
            await settle()
            lives = bad_starts == 0 or directive is Directive.RESTART
            assert starts == list(range(1, (2 + bad_starts if lives else 2) + 1))
            assert ref.is_terminated is not lives

    if directive is Directive.ESCALATE and bad_starts:
        with pytest.raises(ChildEscalated):
            run(scenario)
    else:
        run(scenario)
