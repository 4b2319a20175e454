"""A failure climbs as far as the supervisors let it: chains of them against a model, up to the end of the system."""

import pytest
import trio
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.actor import (
    Actor,
    ActorEscalated,
    ActorSystem,
    AutoShutdown,
    ChildEscalated,
    ChildSpec,
    Directive,
    Props,
    Restart,
    SupervisorGaveUp,
    SupervisorStrategy,
    one_for_one,
    stopping,
)

from .kit import run, settle


class Level(Actor):
    """One link of the chain: starts the next one, fails on demand."""

    def __init__(self, depth, strategies, starts):
        self.depth, self.strategies, self.starts = depth, strategies, starts
        self.supervisor_strategy = strategies[depth + 1]

    async def pre_start(self, ctx):
        self.starts[self.depth] += 1
        if self.depth + 2 < len(self.strategies):
            await ctx.spawn(level(self.depth + 1, self.strategies, self.starts), "x")

    async def handle(self, message, ctx):
        raise message


def level(depth, strategies, starts):
    return Props(factory=lambda: Level(depth, strategies, starts))


@define
class Model:
    """``directives[k]`` is what becomes of level k, decided one above it; ``weary`` ones never restart anybody."""

    directives: list
    weary: list
    starts: list = field(init=False)
    alive: int = field(init=False)
    escalated: list = field(factory=list)
    ended: bool = False

    def __attrs_post_init__(self):
        self.starts = [1] * len(self.directives)
        self.alive = len(self.directives)

    def path(self, depth):
        return "/" + "/".join("x" * (depth + 1))

    def fail(self, depth):
        """Let a level fail; returns the types of the errors on the way, the last one first."""
        chain = []
        while True:
            directive = self.directives[depth]
            if directive is Directive.RESUME:
                return chain
            if directive is Directive.STOP:
                self.alive = depth
                return chain
            if directive is Directive.RESTART and not self.weary[depth]:
                for i in range(depth, len(self.directives)):
                    self.starts[i] += 1
                self.alive = len(self.directives)
                return chain
            supervisor = "/" if depth == 0 else self.path(depth - 1)
            gave_up = directive is Directive.RESTART
            chain.insert(0, (SupervisorGaveUp, supervisor) if gave_up else (ChildEscalated, self.path(depth)))
            self.escalated.append(self.path(depth))
            self.alive = depth
            if depth == 0:
                self.ended = True
                return chain
            depth -= 1


@settings(max_examples=140)
@given(
    links=st.lists(
        st.tuples(
            st.sampled_from([Directive.RESUME, Directive.RESTART, Directive.STOP] + 3 * [Directive.ESCALATE]),
            st.sampled_from([False, False, False, True]),
        ),
        min_size=1,
        max_size=5,
    ),
    crashes=st.lists(st.integers(0, 4), max_size=6),
    _seed=st.random_module(),
)
def test_a_failure_climbs_as_the_model_says(links, crashes, _seed):
    model = Model([directive for directive, _ in links], [weary for _, weary in links])
    strategies = [one_for_one(otherwise=directive, max_restarts=0 if weary else 100) for directive, weary in links]
    starts, escalated, error, chain = [0] * len(links), [], KeyError("first"), []

    async def scenario():
        async with ActorSystem.create("t", supervisor_strategy=strategies[0]) as system:
            system.events.subscribe(ActorEscalated, lambda event: escalated.append(event.path))
            await system.actor_of(level(0, [*strategies, stopping()], starts), "x")
            for depth in crashes:
                if not model.alive:
                    break
                depth %= model.alive
                system.lookup(model.path(depth)).tell(error)
                chain[:] = model.fail(depth)
                if model.ended:
                    await trio.sleep(100)
                    raise AssertionError("the block goes on although nobody is left to decide")
                await settle()
                assert starts == model.starts
                for i in range(len(links)):
                    assert (system.lookup(model.path(i)) is not None) is (i < model.alive)

    try:
        run(scenario)
    except (ChildEscalated, SupervisorGaveUp) as failure:
        assert model.ended
        found = failure
        for kind, path in chain:
            assert (type(found), found.path) == (kind, path)
            found = found.__cause__
        assert found is error
        # The root itself has nobody above: its failure is news too.
        assert escalated == [*model.escalated, "/"]
    else:
        assert not model.ended
        assert escalated == model.escalated


class Worker(Actor):
    def __init__(self, name, ended):
        self.name, self.ended = name, ended

    async def handle(self, message, ctx):
        if isinstance(message, Exception):
            raise message
        ctx.stop()

    async def post_stop(self, ctx):
        self.ended.append(self.name)


class Job(Actor):
    def __init__(self, auto, specs, ended):
        self.supervisor_strategy = SupervisorStrategy(
            decider=one_for_one({KeyError: Directive.STOP}).decider, auto_shutdown=auto, max_restarts=1000
        )
        self.specs, self.ended = specs, ended

    async def pre_start(self, ctx):
        for i, (significant, restart) in enumerate(self.specs):
            props = Props(factory=lambda i=i: Worker(i, self.ended))
            await ctx.start(ChildSpec(id=str(i), props=props, restart=restart, significant=significant))


@settings(max_examples=100)
@given(
    auto=st.sampled_from(AutoShutdown),
    specs=st.lists(st.tuples(st.booleans(), st.sampled_from(Restart)), min_size=1, max_size=5),
    operations=st.lists(st.tuples(st.sampled_from(["stop", "quit", "fail", "fatal"]), st.integers(0, 4)), max_size=8),
    _seed=st.random_module(),
)
def test_a_supervisor_ends_with_its_significant_children(auto, specs, operations, _seed):
    """And only with those that are gone for good; the rest is stopped in the usual order."""
    ended = []

    async def scenario():
        async with ActorSystem.create("t", supervisor_strategy=stopping()) as system:
            parent = await system.actor_of(Props(factory=lambda: Job(auto, specs, ended)), "p")
            alive = list(range(len(specs)))
            refs = [system.lookup(f"/p/{i}") for i in alive]
            for what, who in operations:
                if who not in alive:
                    continue
                ended.clear()
                significant, restart = specs[who]
                match what:
                    case "stop":
                        refs[who].stop()
                    case "quit":
                        refs[who].tell("quit")
                    case _:
                        refs[who].tell(ValueError() if what == "fail" else KeyError())
                await settle()
                restarted = (what == "fail" and restart is not Restart.TEMPORARY) or (
                    what == "quit" and restart is Restart.PERMANENT
                )
                if restarted:
                    assert not refs[who].is_terminated
                    assert ended == []
                    continue
                alive.remove(who)
                left = any(specs[i][0] for i in alive)
                done = significant and (
                    auto is AutoShutdown.ANY_SIGNIFICANT or (auto is AutoShutdown.ALL_SIGNIFICANT and not left)
                )
                assert parent.is_terminated is done
                assert ended == [who, *(reversed(alive) if done else [])]
                if done:
                    return

    run(scenario)


@settings(max_examples=20)
@given(depth=st.integers(0, 3), in_task=st.booleans(), _seed=st.random_module())
def test_the_last_failure_comes_out_of_the_block_while_its_body_is_elsewhere(depth, in_task, _seed):
    """The body is cancelled wherever it waits, and what it raises meanwhile does not hide the failure."""

    async def scenario():
        async with ActorSystem.create("t") as system:
            strategies = [one_for_one(otherwise=Directive.ESCALATE)] * (depth + 2)
            await system.actor_of(level(0, strategies, [0] * (depth + 1)), "x")
            system.lookup("/" + "/".join("x" * (depth + 1))).tell(KeyError("deep"))
            if in_task:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()

    with pytest.raises(ChildEscalated) as caught:
        run(scenario)
    error = caught.value
    for i in range(depth + 1):
        assert error.path == "/" + "/".join("x" * (i + 1))
        error = error.__cause__
    assert repr(error) == "KeyError('deep')"


class Mild(Exception):
    pass


class Firm(Exception):
    pass


class Hard(Exception):
    pass


class Odd(Exception):
    """What the decider itself breaks on."""


SEVERITY = {Mild: Directive.RESUME, Firm: Directive.RESTART, Hard: Directive.STOP, KeyError: Directive.ESCALATE}


def decide_or_break(failure):
    if isinstance(failure, Odd):
        raise RuntimeError("no idea")
    return SEVERITY[type(failure)]


LEAVES = st.sampled_from([Mild, Mild, Firm, Hard, KeyError, Odd]).map(lambda kind: kind())
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, min_size=1, max_size=3).map(lambda errors: ExceptionGroup("g", errors))
)


@given(failure=TREES, in_task=st.booleans(), _seed=st.random_module())
def test_the_most_severe_leaf_of_a_group_decides_and_who_cannot_decide_escalates(failure, in_task, _seed):
    starts = [0]

    class Child(Level):
        async def handle(self, message, ctx):
            if not in_task:
                raise message
            ctx.spawn_task(super().handle, message, ctx)

    def flat(error):
        return [leaf for each in error.exceptions for leaf in flat(each)] if hasattr(error, "exceptions") else [error]

    odd = any(isinstance(leaf, Odd) for leaf in flat(failure))
    expected = max(
        (Directive.ESCALATE if odd else SEVERITY[type(leaf)] for leaf in flat(failure)), key=lambda each: each.value
    )

    async def scenario():
        strategy = SupervisorStrategy(decider=decide_or_break)
        async with ActorSystem.create("t", supervisor_strategy=strategy) as system:
            ref = await system.actor_of(Props(factory=lambda: Child(0, [strategy, strategy], starts)), "x")
            ref.tell(failure)
            await settle()
            assert starts == [2 if expected is Directive.RESTART else 1]
            assert ref.is_terminated is (expected is Directive.STOP)

    if expected is Directive.ESCALATE:
        with pytest.raises(ChildEscalated) as caught:
            run(scenario)
        assert caught.value.__cause__ is failure
    else:
        run(scenario)
