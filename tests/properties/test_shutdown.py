"""The end of a system: in order, in time, and with nothing left behind, whoever hangs and however it is brought about.

The first property knows the instant of every step from a model; the second lets crashes, restarts and pauses be cut off
at any time and checks the laws that hold for all of them.
"""

import math
from collections import Counter
from functools import partial

import trio
from attrs import define, evolve, field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.actor import (
    Actor,
    ActorError,
    ActorSystem,
    Backoff,
    ChildSpec,
    Props,
    Scope,
    SupervisorStrategy,
    escalating,
)

from .kit import Channels, all_tasks, run


@frozen
class Node:
    """One actor of the tree. Durations in seconds, infinity for ever; ``i`` keeps its moments apart from others'."""

    i: int
    shutdown: int
    handler: float | None
    closing: float
    manners: str
    has_task: bool
    start: float
    children: tuple = ()

    @property
    def done_at(self):
        return -1.0 if self.handler is None else self.handler + (self.i + 1) / 64

    def all(self):
        return [self, *(deep for child in self.children for deep in child.all())]


class Member(Actor):
    def __init__(self, node, log, strategy):
        self.node, self.log = node, log
        self.supervisor_strategy = strategy
        self.id = object()

    def note(self, what):
        self.log.append((trio.current_time(), what, self.node.i, self.id))

    async def pre_start(self, ctx):
        if self.node.has_task:
            ctx.spawn_task(self.task)
        for child in self.node.children:
            props = member(child, self.log, self.supervisor_strategy)
            if child.i % 2:
                await ctx.spawn(props, str(child.i))
            else:
                # The deadline of the place goes before the recipe's.
                props = evolve(props, shutdown=1000.0)
                await ctx.start(ChildSpec(id=str(child.i), props=props, shutdown=child.shutdown))
        if self.node.start:
            await trio.sleep(self.node.start)
        self.note("started")

    async def handle(self, message, ctx):
        if isinstance(message, Exception):
            self.note("crashed")
            raise message
        end = "cut off"
        try:
            await trio.sleep_until(self.node.done_at)
            end = "finished"
        except trio.Cancelled:
            await self.misbehave()
            raise
        finally:
            self.note(end)

    async def misbehave(self):
        """Raise something while being cancelled: an error, or one in a group with the cancellation."""
        if self.node.manners == "dirty":
            raise ValueError("while being cancelled") from None
        if self.node.manners == "mixed":
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                raise ValueError("while being cancelled") from None

    async def task(self):
        try:
            await trio.sleep_forever()
        finally:
            self.note("task ended")
            await self.misbehave()

    async def pre_restart(self, failure, ctx):
        self.note("pre_restart")
        await self.close()

    async def post_stop(self, ctx):
        self.note("post_stop")
        await self.close()

    async def close(self):
        try:
            if self.node.closing:
                await trio.sleep(self.node.closing)
            if self.node.manners == "raises":
                raise ValueError("in post_stop")
        finally:
            self.note("closed")


def member(node, log, strategy):
    return Props(factory=lambda: Member(node, log, strategy), shutdown=node.shutdown)


FOREVER = st.just(math.inf)


@st.composite
def forests(draw, size=8, starts=(0.0,)):
    """Return top-level nodes, each with its children, in start order."""
    count = draw(st.integers(1, size))
    parents = [draw(st.integers(-1, i - 1)) for i in range(count)]
    nodes = {}
    for i in reversed(range(count)):
        nodes[i] = Node(
            i=i,
            shutdown=draw(st.integers(0, 3)),
            handler=draw(st.none() | FOREVER | st.integers(0, 8).map(float)),
            closing=draw(st.just(0.0) | FOREVER | st.integers(0, 4).map(lambda s: s + 1 / 4)),
            manners=draw(st.sampled_from(["good", "good", "dirty", "mixed", "raises"])),
            has_task=draw(st.booleans()),
            start=draw(st.sampled_from(starts)),
            children=tuple(nodes[j] for j in range(i + 1, count) if parents[j] == i),
        )
    return tuple(nodes[j] for j in range(count) if parents[j] == -1)


@define
class Model:
    """The stop of a tree: the message in hand, then the children, the youngest first, then the tasks, then the hook."""

    log: list = field(factory=list)

    def stop(self, node, now):
        """Return when the node that is told to stop at ``now`` is gone."""
        if node.done_at > now:
            end = min(node.done_at, now + node.shutdown)
            self.log.append((end, "finished" if end == node.done_at else "cut off", node.i))
            now = end
        elif node.handler is not None:
            self.log.append((node.done_at, "finished", node.i))
        for child in reversed(node.children):
            now = self.stop(child, now)
        if node.has_task:
            self.log.append((now, "task ended", node.i))
        self.log.append((now, "post_stop", node.i))
        now += min(node.closing, node.shutdown)
        self.log.append((now, "closed", node.i))
        return now


WORK = st.lists(st.tuples(FOREVER | st.integers(0, 4).map(lambda s: s + 1 / 4), st.integers(1, 3)), max_size=3)


@settings(max_examples=150)
@given(
    forest=forests(),
    way=st.sampled_from(["leave", "cancel", "raise", "terminate", "shutdown", "escalate"]),
    stop_at=st.integers(0, 10),
    phases=st.fixed_dictionaries({"unbind": WORK, "drain": WORK, "close": WORK}),
    _seed=st.random_module(),
)
def test_a_system_ends_when_the_model_says_and_leaves_nothing(forest, way, stop_at, phases, _seed):
    log, model, at = [], Model(), stop_at + 1 / 2

    def spans(phase):
        return max((min(work, timeout) for work, timeout in phases[phase]), default=0)

    # Whoever is cancelled or terminated stops at once; the phases then run beside that.
    drained_at = at + spans("unbind") + spans("drain")
    gone_at = drained_at if way in ("leave", "raise", "shutdown") else at
    for node in reversed(forest):
        gone_at = model.stop(node, gone_at)
    if way == "escalate":
        drained_at += gone_at - at
    end = max(gone_at, drained_at) + spans("close")

    async def scenario():
        before = all_tasks()
        scope = trio.CancelScope(deadline=at if way == "cancel" else math.inf)
        try:
            with scope:
                async with ActorSystem.create("t", supervisor_strategy=escalating()) as system:
                    for phase, works in phases.items():
                        for i, (work, timeout) in enumerate(works):
                            system.shutdown.add_task(phase, str(i), partial(trio.sleep, work), timeout=timeout)
                    for node in forest:
                        ref = await system.actor_of(member(node, log, escalating()), str(node.i))
                    for node in (deep for top in forest for deep in top.all()):
                        if node.handler is not None:
                            find(system, forest, node).tell("work")
                    if way == "escalate":
                        bomb = await system.actor_of(Props(factory=Bomb), "bomb")
                    await trio.sleep_until(at if way != "cancel" else math.inf)
                    match way:
                        case "raise":
                            raise LookupError("mine")
                        case "terminate":
                            system.terminate()
                        case "shutdown":
                            await system.shutdown.run("test")
                            assert ref.is_terminated
                            assert system.shutdown.is_done
                            assert trio.current_time() == end
                        case "escalate":
                            bomb.tell("go")
                            await trio.sleep_forever()
        except LookupError:
            assert way == "raise"
        except ActorError as error:
            assert way == "escalate"
            assert isinstance(error.__cause__, KeyError)
        else:
            assert way not in ("raise", "escalate")
        assert scope.cancelled_caught is (way == "cancel")
        assert trio.current_time() == end
        assert end - at <= sum(2 * node.shutdown for top in forest for node in top.all()) + sum(
            max((timeout for _, timeout in works), default=0) for works in phases.values()
        )
        assert all_tasks() == before
        overran = sorted((phase, str(i)) for phase, works in phases.items() for i, (w, t) in enumerate(works) if w > t)
        assert sorted((fault.phase, fault.task) for fault in system.shutdown.faults) == overran

    with Channels() as channels:
        run(scenario)
    assert channels.in_use() == []
    happened = [(time, what, who) for time, what, who, _ in log if what != "started"]

    # A finished handler may be noted long before; otherwise the order is exact.
    def early(event):
        return event[1] == "finished"

    assert [event for event in happened if not early(event)] == [event for event in model.log if not early(event)]
    assert Counter(event for event in happened if early(event)) == Counter(event for event in model.log if early(event))


class Bomb(Actor):
    async def handle(self, message, ctx):
        raise KeyError("bomb")


def find(system, forest, wanted):
    """Return the reference of a node, by its path."""

    def search(node, path):
        if node is wanted:
            return path + str(node.i)
        return next(filter(None, (search(child, f"{path}{node.i}/") for child in node.children)), None)

    return system.lookup(next(filter(None, (search(top, "/") for top in forest))))


STRATEGIES = st.builds(
    SupervisorStrategy,
    scope=st.sampled_from(Scope),
    max_restarts=st.sampled_from([1, 100]),
    backoff=st.none() | st.just(Backoff(initial=1.0, maximum=4.0, jitter=0.0)),
)


@settings(max_examples=150)
@given(
    forest=forests(starts=(0.0, 0.0, 0.5, 2.0)),
    strategy=STRATEGIES,
    crashes=st.lists(st.tuples(st.integers(0, 24), st.integers(0, 7)), max_size=8),
    cut_at=st.integers(0, 40),
    _seed=st.random_module(),
)
def test_a_system_cut_off_at_any_time_keeps_the_laws(forest, strategy, crashes, cut_at, _seed):
    log, nodes, at = [], {node.i: node for top in forest for node in top.all()}, cut_at / 4 + 1 / 16

    async def crasher(system):
        for when, who in sorted(crashes):
            await trio.sleep_until(when / 4)
            if who in nodes and (ref := find(system, forest, nodes[who])) is not None:
                ref.tell(KeyError(who))

    async def scenario():
        before = all_tasks()
        try:
            with trio.move_on_at(at) as scope:
                async with (
                    trio.open_nursery() as nursery,
                    ActorSystem.create("t", supervisor_strategy=strategy) as system,
                ):
                    nursery.start_soon(crasher, system)
                    for node in forest:
                        await system.actor_of(member(node, log, strategy), str(node.i))
                    await trio.sleep_forever()
        except* ActorError:
            # A supervisor that gave up ends the system before its time.
            assert not scope.cancelled_caught
        if scope.cancelled_caught:
            assert trio.current_time() - at <= sum(2 * node.shutdown for node in nodes.values())
        assert all_tasks() == before

    with Channels() as channels:
        run(scenario)
    assert channels.in_use() == []
    started = Counter(instance for _, what, _, instance in log if what == "started")
    ended = Counter(instance for _, what, _, instance in log if what in ("post_stop", "pre_restart"))
    assert set(started.values()) <= {1}
    assert set(ended.values()) <= {1}
    assert set(started) <= set(ended)
    check_lives(log, forest)
    check_order(log, forest, at, gives_up=strategy.max_restarts == 1)


def check_lives(log, forest):
    """No two instances of one actor live at once, and none outlives its parent's."""
    parents = {child.i: node.i for top in forest for node in top.all() for child in node.children}
    living = {}
    for _, what, who, instance in log:
        if what == "started":
            assert who not in living
            living[who] = instance
        elif what in ("post_stop", "pre_restart"):
            assert living.pop(who, instance) is instance
            assert not any(parents.get(other) == who for other in living)


def check_order(log, forest, at, *, gives_up):
    """Of siblings that are stopped at the end, the younger goes first, but for those that fail meanwhile."""
    crashed = {instance for _, what, _, instance in log if what == "crashed"}
    names = {who for _, what, who, _ in log if what == "crashed"}
    # A supervisor that gives up fails too: it may be ending, and waiting for its children, when the end comes.
    failing = {node.i for top in forest for node in top.all() if gives_up and names & {one.i for one in node.all()}}
    last = {
        who: i
        for i, (time, what, who, instance) in enumerate(log)
        if what == "post_stop" and time >= at and instance not in crashed and who not in failing
    }
    stopped = sorted(last, key=last.__getitem__)
    for family in (forest, *(node.children for top in forest for node in top.all())):
        order = [who for who in stopped if who in {node.i for node in family}]
        assert order == sorted(order, reverse=True)


TASKS = st.tuples(
    st.sampled_from(["unbind", "drain", "close"]),
    st.sampled_from(["finish", "fail", "fail when cancelled"]),
    st.integers(1, 10).map(lambda seconds: seconds - 1 / 2),
    st.integers(1, 10),
)


@settings(max_examples=100)
@given(
    tasks=st.lists(TASKS, max_size=8),
    abort_at=st.none() | st.integers(0, 25).map(lambda seconds: seconds + 1 / 4),
    callers=st.integers(0, 2),
    cancels=st.booleans(),
    _seed=st.random_module(),
)
def test_phases_come_one_after_the_other_and_an_abort_skips_the_rest_but_not_the_actors(
    tasks, abort_at, callers, cancels, _seed
):
    """Tasks fail, overrun and are aborted; callers join and are cancelled; the actors are stopped once in any case."""
    log, node = [], Node(0, 1, None, 0.0, "good", True, 0.0)

    def work(phase, way, seconds):
        async def run_task():
            log.append((trio.current_time(), "begin", phase))
            try:
                await trio.sleep(seconds)
                if way == "fail":
                    raise OSError
            except trio.Cancelled:
                if way == "fail when cancelled":
                    raise LookupError from None
                raise
            finally:
                log.append((trio.current_time(), "end", phase))

        return run_task

    now, spans = 0.0, {}
    for phase in ("unbind", "drain", "close"):
        spans[phase] = now
        now += max((min(seconds, timeout) for each, _, seconds, timeout in tasks if each == phase), default=0)
    end = now if abort_at is None else min(now, abort_at)

    async def scenario():
        before = all_tasks()
        async with ActorSystem.create("t") as system, trio.open_nursery() as nursery:
            await system.actor_of(member(node, log, escalating()), "0")
            for i, (phase, way, seconds, timeout) in enumerate(tasks):
                system.shutdown.add_task(phase, str(i), work(phase, way, seconds), timeout=timeout)

            async def join():
                with trio.move_on_after(1 / 8 if cancels else math.inf):
                    await system.shutdown.run("joined")

            async def abort():
                if abort_at is not None:
                    await trio.sleep_until(abort_at)
                    system.shutdown.abort("test")

            for _ in range(callers):
                nursery.start_soon(join)
            nursery.start_soon(abort)
            await system.shutdown.run("test")
            assert trio.current_time() == end
            assert system.shutdown.is_done
            nursery.cancel_scope.cancel(reason="done")
        assert trio.current_time() == end
        assert all_tasks() == before
        hows = {str(i): (way, seconds, timeout) for i, (_, way, seconds, timeout) in enumerate(tasks)}
        for fault in system.shutdown.faults:
            way, seconds, timeout = hows[fault.task]
            if fault.failure is None:
                assert seconds > timeout
            else:
                assert isinstance(fault.failure, OSError if way == "fail" and seconds < timeout else LookupError)

    run(scenario)
    for phase, begins_at in spans.items():
        mine = [(time, what) for time, what, which, _ in ((*event, None)[:4] for event in log) if which == phase]
        expected = sum(each == phase for each, *_ in tasks) if begins_at < end or abort_at is None else 0
        assert [time for time, what in mine if what == "begin"] == [begins_at] * expected
        assert sum(what == "end" for _, what in mine) == expected
    stops = [event[0] for event in log if event[1] == "post_stop"]
    assert len(stops) == 1
    assert stops[0] == min(spans["close"], end)
