"""The actor core, cancelled at every checkpoint of everything it does.

Whatever was under way: every life that began has ended once, by one closing hook, children before their parents and
the younger before the older; every question has its answer or nobody waits for it; and no task is left.
"""

import logging
from typing import Any

import pytest
import trio
from attrs import define, field

from atomr_trio.actor import (
    Actor,
    ActorFailed,
    ActorStopped,
    ActorSystem,
    Backoff,
    ChildSpec,
    Props,
    Request,
    Restart,
    StreamRequest,
    SupervisorStrategy,
    escalating,
    one_for_all,
    one_for_one,
    rest_for_one,
    stopping,
)
from atomr_trio.testing import cancel_everywhere


class Do(Request[Any]):
    """Run a function in the handler and answer with what it returns."""

    def __init__(self, fn):
        self.fn = fn


class Pour(StreamRequest[int]):
    pass


@define
class Ledger:
    """What one run leaves behind."""

    log: list[tuple[str, str, int]] = field(factory=list)
    """("begins" or "ends", path, incarnation) of every instance that was built."""
    slots: list[Any] = field(factory=list)
    streams: list[str] = field(factory=list)
    tasks: list[str] = field(factory=list)

    def check(self):
        living = {}
        for what, path, incarnation in self.log:
            if what == "begins":
                assert path not in living, "one life at a time"
                living[path] = incarnation
            else:
                assert living.pop(path) == incarnation, "each life ends once"
                assert not any(other.startswith(f"{path}/") for other in living), "children end before their parents"
        assert not living, "every life ends"
        assert all(slot.is_resolved or slot.abandoned for slot in self.slots), "nobody waits for ever"
        assert self.tasks in ([], ["added", "ran"]), "what was to be done at the end is done"
        assert self.streams.count("begins") == self.streams.count("ends"), "every producer ends"

    def check_order(self):
        self.check()
        begun = [path for what, path, _ in self.log if what == "begins"]
        ended = [path for what, path, _ in self.log if what == "ends"]
        assert ended == begun[::-1], "the youngest ends first"


class Node(Actor[Any]):
    """Keeps the ledger, and has children of its own kind."""

    def __init__(self, ledger, children=(), strategy=None, crashes=()):
        self.ledger, self.children, self.crashes = ledger, dict(children), crashes
        self.supervisor_strategy = strategy or one_for_one()

    async def pre_start(self, ctx):
        self.life = (ctx.path, ctx.incarnation)
        self.ledger.log.append(("begins", *self.life))
        for name, props in self.children.items():
            await ctx.start(ChildSpec(id=name, props=props, restart=Restart.PERMANENT))
        if ctx.incarnation in self.crashes:
            raise RuntimeError("in pre_start")

    async def handle(self, message, ctx):
        match message:
            case Exception():
                raise message
            case Do():
                return await message.fn(self, ctx)
            case Pour():
                ctx.stream(self.pour)

    async def pour(self, sink):
        self.ledger.streams.append("begins")
        try:
            for number in range(3):
                await sink.send(number)
        finally:
            self.ledger.streams.append("ends")

    async def close(self):
        await trio.lowlevel.checkpoint()
        self.ledger.log.append(("ends", *self.life))

    async def pre_restart(self, failure, ctx):
        await self.close()

    async def post_stop(self, ctx):
        await self.close()


def node(ledger, *, shutdown=5.0, capacity=8, **rest):
    return Props(factory=lambda: Node(ledger, **rest), shutdown=shutdown, capacity=capacity)


def family(ledger, strategy=None, names="ab", **rest):
    return node(ledger, children={name: node(ledger, **rest) for name in names}, strategy=strategy)


async def enters_and_leaves(ledger):
    async with ActorSystem.create("it"):
        pass


async def spawns_a_tree(ledger):
    async with ActorSystem.create("it") as system:
        await system.actor_of(node(ledger, children={"left": family(ledger), "right": node(ledger)}), "top")


async def asks(ledger):
    async with ActorSystem.create("it") as system:
        ref = await system.actor_of(node(ledger), "a")

        async def answer(_actor, ctx):
            slot = ctx.defer_reply()
            ledger.slots.append(slot)
            await trio.sleep(1)
            slot.resolve(3)

        assert await ref.ask(Do(answer), timeout=5) == 3


async def asks_through_another(ledger):
    async with ActorSystem.create("it") as system:
        back = await system.actor_of(node(ledger), "back")

        async def echo(_actor, ctx):
            await trio.sleep(1)
            return 7

        async def front(_actor, ctx):
            return await back.ask(Do(echo), timeout=5)

        ref = await system.actor_of(node(ledger), "front")
        assert await ref.ask(Do(front), timeout=9) == 7


async def asks_in_parallel(ledger):
    async with ActorSystem.create("it") as system:
        ref = await system.actor_of(node(ledger), "a")

        async def answer(_actor, ctx):
            ledger.slots.append(ctx.defer_reply())
            await trio.sleep(0.1)
            ledger.slots[-1].resolve(1)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(lambda: ref.ask(Do(answer), timeout=5))


async def sends_into_a_full_mailbox(ledger):
    async with ActorSystem.create("it") as system:
        ref = await system.actor_of(node(ledger, capacity=1), "a")

        async def slow(_actor, ctx):
            await trio.sleep(1)

        for _ in range(4):
            await ref.send(Do(slow))


async def reads_a_stream(ledger):
    async with ActorSystem.create("it") as system:
        ref = await system.actor_of(node(ledger), "a")
        async with ref.ask_stream(Pour(), capacity=1) as items:
            assert [item async for item in items] == [0, 1, 2]


async def leaves_a_stream(ledger):
    async with ActorSystem.create("it") as system:
        ref = await system.actor_of(node(ledger), "a")
        async with ref.ask_stream(Pour(), capacity=1) as items:
            assert await anext(items) == 0
        await ref.ask(Do(_nothing), timeout=1)


async def _nothing(_actor, _ctx):
    pass


async def stops(ledger):
    async with ActorSystem.create("it") as system:
        ref = await system.actor_of(family(ledger), "top")
        ref.stop()
        await ref.wait_terminated()
        with pytest.raises(ActorStopped):
            await ref.ask(Do(_nothing), timeout=1)


async def stops_what_hangs(ledger):
    async with ActorSystem.create("it") as system:
        ref = await system.actor_of(node(ledger, shutdown=0.5), "a")

        async def hang(_actor, ctx):
            await trio.sleep_forever()

        ref.tell(Do(hang))
        await trio.testing.wait_all_tasks_blocked()
        ref.stop()
        await ref.wait_terminated()


def restarts(strategy):
    async def scenario(ledger):
        async with ActorSystem.create("it") as system:
            top = await system.actor_of(family(ledger, strategy, "abc"), "top")
            child = system.lookup("/top/b")
            assert child is not None
            with pytest.raises(ActorFailed):
                await child.ask(Do(_crash), timeout=1)
            await trio.sleep(5)
            assert await top.ask(Do(_count), timeout=1) == 3

    scenario.__qualname__ = f"restarts_{strategy.scope.name.lower()}"
    return scenario


async def _crash(_actor, _ctx):
    raise RuntimeError("in the handler")


async def _count(_actor, ctx):
    return len(ctx.children)


async def fails_to_start(ledger):
    async with ActorSystem.create("it") as system:
        with pytest.raises(ActorFailed):
            await system.actor_of(node(ledger, children={"a": node(ledger)}, crashes=(1,)), "top")


async def restarts_into_failing_starts(ledger):
    async with ActorSystem.create("it", supervisor_strategy=stopping()) as system:
        strategy = SupervisorStrategy(max_restarts=5, within=60, backoff=Backoff(initial=0.5, maximum=4))
        top = await system.actor_of(family(ledger, strategy, "ab", crashes=(2, 3)), "top")
        child = system.lookup("/top/a")
        assert child is not None
        child.tell(RuntimeError("first"))
        await trio.sleep(60)
        assert await top.ask(Do(_count), timeout=1) == 2


async def gives_up(ledger):
    async with ActorSystem.create("it", supervisor_strategy=stopping()) as system:
        top = await system.actor_of(family(ledger, SupervisorStrategy(max_restarts=1, within=60)), "top")
        for _ in range(2):
            child = system.lookup("/top/a")
            if child is not None:
                child.tell(RuntimeError("again"))
            await trio.sleep(1)
        await top.wait_terminated()


async def escalates(ledger):
    with pytest.raises(Exception, match="escalated"):
        async with ActorSystem.create("it", supervisor_strategy=escalating()) as system:
            top = await system.actor_of(family(ledger, escalating()), "top")
            child = system.lookup("/top/b")
            assert child is not None
            child.tell(RuntimeError("up"))
            await top.wait_terminated()
            await trio.sleep_forever()


async def runs_tasks_and_timers(ledger):
    async with ActorSystem.create("it") as system:
        ref = await system.actor_of(node(ledger), "a")

        async def begin(_actor, ctx):
            ctx.spawn_task(trio.sleep_forever)
            ctx.timers.start_once("tick", Do(_nothing), 1)
            ctx.set_receive_timeout(0.5)

        await ref.ask(Do(begin), timeout=1)
        await trio.sleep(4)


async def runs_its_shutdown(ledger):
    async with ActorSystem.create("it") as system:
        system.shutdown.add_task("drain", "note", lambda: note(ledger))
        ledger.tasks.append("added")
        await system.actor_of(node(ledger), "a")


async def note(ledger):
    await trio.sleep(1)
    ledger.tasks.append("ran")


async def watches(ledger):
    async with ActorSystem.create("it") as system:
        watched = await system.actor_of(node(ledger), "watched")
        watcher = await system.actor_of(node(ledger), "watcher")

        async def watch(_actor, ctx):
            ctx.watch(watched)

        await watcher.ask(Do(watch), timeout=1)
        watched.stop()
        await watched.wait_terminated()
        await watcher.ask(Do(_nothing), timeout=1)


@pytest.fixture(scope="module", autouse=True)
def quiet_core():
    """Thousands of failures on purpose: formatting their tracebacks would take half of the time."""
    log = logging.getLogger("atomr_trio.actor")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    yield
    log.setLevel(level)


SCENARIOS = [
    enters_and_leaves,
    spawns_a_tree,
    asks,
    asks_through_another,
    asks_in_parallel,
    sends_into_a_full_mailbox,
    reads_a_stream,
    leaves_a_stream,
    stops,
    stops_what_hangs,
    restarts(one_for_one()),
    restarts(one_for_all()),
    restarts(rest_for_one()),
    fails_to_start,
    restarts_into_failing_starts,
    gives_up,
    escalates,
    runs_tasks_and_timers,
    runs_its_shutdown,
    watches,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__qualname__)
def test_nothing_is_left_wherever_it_is_cancelled(scenario):
    report = cancel_everywhere(scenario, fresh=Ledger, check=Ledger.check)
    assert report.points > 5


@pytest.mark.parametrize("seed", range(3))
def test_the_youngest_ends_first_wherever_it_is_cancelled(seed):
    cancel_everywhere(spawns_a_tree, fresh=Ledger, check=Ledger.check_order, seed=seed)
