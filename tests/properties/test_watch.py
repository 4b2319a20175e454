"""A death is heard of exactly once, with its reason, by those who still want to know.

An exact model of three watchers and four watched, checked at rest after every operation, and the same laws once more
with everything running against everything.
"""

from collections import Counter

import trio
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.actor import Actor, ActorSystem, Directive, NameTaken, Props, Request, one_for_one

from .kit import run, settle

WATCHERS, TARGETS = range(3), range(3, 7)


class Restartable(Exception):
    pass


class Fatal(Exception):
    pass


STRATEGY = one_for_one({Restartable: Directive.RESTART, Fatal: Directive.STOP}, max_restarts=10_000)


class Do(Request):
    """Run a function in the actor."""

    def __init__(self, fn):
        self.fn = fn


class Peer(Actor):
    """Watches and is watched."""

    def __init__(self, number, world):
        self.number, self.world = number, world

    async def handle(self, message, ctx):
        if isinstance(message, Do):
            return await message.fn(self, ctx)
        self.world.mail[self.number].append((message, len(self.world.heard[self.number])))

    async def on_terminated(self, terminated, ctx):
        world = self.world
        assert terminated.ref.is_terminated
        world.heard[self.number].append((world.number_of(terminated.ref), terminated.reason, terminated.failure))
        # The name is free, or somebody new has it already.
        found = ctx.system.lookup(terminated.ref.path)
        world.name_was_free.append(found is None or found != terminated.ref)
        if world.fail_on_terminated:
            raise Restartable


@define
class World:
    refs: list = field(factory=list)
    heard: dict = field(factory=lambda: {i: [] for i in range(7)})
    mail: dict = field(factory=lambda: {i: [] for i in range(7)})
    name_was_free: list = field(factory=list)
    fail_on_terminated: bool = False

    def number_of(self, ref):
        return self.refs.index(ref)

    async def spawn_all(self, system):
        for i in range(7):
            self.refs.append(await system.actor_of(Props(factory=lambda i=i: Peer(i, self)), str(i)))


@define
class Model:
    alive: set = field(factory=lambda: set(range(7)))
    watching: dict = field(factory=lambda: {i: [] for i in range(7)})
    causes: dict = field(factory=dict)
    busy: set = field(factory=set)
    queued: dict = field(factory=lambda: {i: [] for i in range(7)})
    heard: dict = field(factory=lambda: {i: [] for i in range(7)})

    def watch(self, who, whom):
        if whom in self.alive and whom not in self.watching[who]:
            self.watching[who].append(whom)
        elif whom not in self.alive and whom not in self.queued[who]:
            self.queued[who].append(whom)

    def unwatch(self, who, whom):
        for names in (self.watching[who], self.queued[who]):
            if whom in names:
                names.remove(whom)

    def die(self, who, reason, failure=None):
        if who not in self.alive:
            return
        self.alive.remove(who)
        self.busy.discard(who)
        self.queued[who].clear()
        self.causes[who] = (reason, failure)
        for watcher in self.alive:
            if who in self.watching[watcher]:
                self.watching[watcher].remove(who)
                self.queued[watcher].append(who)

    def flush(self):
        """Everyone at leisure hears what there is to hear."""
        for who in self.alive - self.busy:
            self.heard[who] += [(whom, *self.causes[whom]) for whom in self.queued[who]]
            self.queued[who].clear()


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(["watch", "watch", "watch", "unwatch"]),
            st.sampled_from(WATCHERS),
            st.lists(st.tuples(st.booleans(), st.integers(0, 6)), max_size=3),
            st.integers(0, 6),
        ),
        st.tuples(st.sampled_from(["stop", "quit", "fatal", "restart"]), st.integers(0, 6)),
        st.tuples(st.sampled_from(["stop", "fatal"]), st.sampled_from(TARGETS)),
        st.tuples(st.just("hold"), st.sampled_from(WATCHERS), st.lists(st.tuples(st.booleans(), st.integers(0, 6)))),
        st.tuples(st.just("release"), st.sampled_from(WATCHERS)),
    ),
    max_size=25,
)


def in_some_order(heard):
    """Only who heard what matters: whoever is forgotten and watched again may be heard of before or after others."""
    return {who: sorted(news, key=lambda item: item[0]) for who, news in heard.items()}


def turns(pairs):
    """Return a function that an actor runs, which watches (true) and unwatches in one go."""

    async def fn(actor, ctx):
        for watches, whom in pairs:
            (ctx.watch if watches else ctx.unwatch)(actor.world.refs[whom])

    return fn


@settings(max_examples=200)
@given(operations=OPERATIONS, failing=st.booleans(), _seed=st.random_module())
def test_each_death_is_heard_of_once_by_those_who_want_to_know(operations, failing, _seed):
    world, model, leaves = World(fail_on_terminated=failing), Model(), {}

    async def scenario():
        async with ActorSystem.create("t", supervisor_strategy=STRATEGY) as system:
            await world.spawn_all(system)

            async def perform(what, who, pairs=(), *last):
                ref = world.refs[who]
                if what == "stop":
                    ref.stop(f"reason {who}")
                    if who in model.busy:
                        leaves.pop(who).set()
                    model.die(who, f"reason {who}")
                    return
                if who not in model.alive or who in model.busy:
                    if what == "release" and who in leaves:
                        model.busy.discard(who)
                        await release(who)
                    return
                match what:
                    case "watch" | "unwatch":
                        turn = [*pairs, *((what == "watch", whom) for whom in last)]
                        for watches, whom in turn:
                            (model.watch if watches else model.unwatch)(who, whom)
                        await ref.ask(Do(turns(turn)), timeout=1)
                    case "quit":

                        async def quit_(_actor, ctx):
                            ctx.stop("enough")

                        ref.tell(Do(quit_))
                        model.die(who, "enough")
                    case "fatal" | "restart":
                        error = Fatal(who) if what == "fatal" else Restartable(who)

                        async def fail(_actor, _ctx):
                            raise error

                        ref.tell(Do(fail))
                        if what == "fatal":
                            model.die(who, "failed", error)
                    case "hold":
                        leaves[who] = leave = trio.Event()
                        model.busy.add(who)
                        pending[who] = list(pairs)

                        async def hold(actor, ctx):
                            await leave.wait()
                            await turns(pairs)(actor, ctx)

                        ref.tell(Do(hold))
                        ref.tell("later")

            pending = {}

            async def release(who):
                # What the handler does at its end comes before it hears of anything.
                for watches, whom in pending.pop(who):
                    (model.watch if watches else model.unwatch)(who, whom)
                leaves.pop(who).set()

            for operation in operations:
                await perform(*operation)
                await settle()
                model.flush()
                assert in_some_order(world.heard) == in_some_order(model.heard)
                assert [not ref.is_terminated for ref in world.refs] == [i in model.alive for i in range(7)]
            for who in list(leaves):
                model.busy.discard(who)
                await release(who)
            await settle()
            model.flush()
            assert in_some_order(world.heard) == in_some_order(model.heard)
        assert all(world.name_was_free)

    run(scenario)


@settings(max_examples=100)
@given(
    pairs=st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=20),
    deaths=st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(0, 3)), max_size=8),
    pauses=st.lists(st.integers(0, 4), max_size=20),
    _seed=st.random_module(),
)
def test_each_death_is_heard_of_once_in_every_schedule(pairs, deaths, pauses, _seed):
    """Watches race with the deaths of both ends, mutual and self-watches among them."""
    world = World()
    pairs = sorted(pairs)

    async def scenario():
        async with ActorSystem.create("t", supervisor_strategy=STRATEGY) as system:
            await world.spawn_all(system)
            watched = []

            async def watch(i, who, whom):
                for _ in range(pauses[i % len(pauses)] if pauses else 0):
                    await trio.lowlevel.checkpoint()

                async def note(_actor, ctx):
                    ctx.watch(world.refs[whom])
                    watched.append((who, whom))

                world.refs[who].tell(Do(note))

            async def kill(who, hard, pause):
                async def fail(_actor, _ctx):
                    raise Fatal

                for _ in range(pause):
                    await trio.lowlevel.checkpoint()
                if hard:
                    world.refs[who].tell(Do(fail))
                else:
                    world.refs[who].stop()

            async with trio.open_nursery() as nursery:
                for i, (who, whom) in enumerate(pairs):
                    nursery.start_soon(watch, i, who, whom)
                for who, hard, pause in deaths:
                    nursery.start_soon(kill, who, hard, pause)
            await settle()
            gone = {i for i, ref in enumerate(world.refs) if ref.is_terminated}
            for who in set(range(7)) - gone:
                heard = Counter(whom for whom, *_ in world.heard[who])
                assert heard == Counter(whom for watcher, whom in watched if watcher == who and whom in gone)
            assert all(world.name_was_free)
            for who in gone:
                assert max(Counter(whom for whom, *_ in world.heard[who]).values(), default=0) <= 1

    run(scenario)


@settings(max_examples=20)
@given(queued=st.integers(1, 80), _seed=st.random_module())
def test_news_of_a_death_overtakes_mail(queued, _seed):
    world, leave = World(), trio.Event()

    async def hold(_actor, _ctx):
        await leave.wait()

    async def scenario():
        async with ActorSystem.create("t") as system:
            await world.spawn_all(system)
            await world.refs[0].ask(Do(turns([(True, 1)])), timeout=1)
            world.refs[0].tell(Do(hold))
            for i in range(queued):
                world.refs[0].tell(i)
            world.refs[1].stop()
            await settle()
            leave.set()
            await settle()
        assert world.mail[0] == [(i, 1) for i in range(queued)]

    run(scenario)


@settings(max_examples=50)
@given(ways=st.lists(st.sampled_from(["stop", "fatal", "restart"]), max_size=6), _seed=st.random_module())
def test_a_parent_may_give_the_name_of_the_dead_to_another_child(ways, _seed):
    """It does so on hearing of the death, and not before: until then the name is taken."""
    lives = []

    class Child(Actor):
        async def pre_start(self, ctx):
            lives.append(ctx.incarnation)

        async def handle(self, message, ctx):
            raise message

    class Parent(Actor):
        supervisor_strategy = STRATEGY

        async def pre_start(self, ctx):
            ctx.watch(await ctx.spawn(Props(factory=Child), "c"))

        async def handle(self, message, ctx):
            try:
                await ctx.spawn(Props(factory=Child), "c")
            except NameTaken as taken:
                return taken.path

        async def on_terminated(self, terminated, ctx):
            ctx.watch(ctx.spawn_soon(Props(factory=Child), "c"))

    async def scenario():
        expected = [1]
        async with ActorSystem.create("t") as system:
            parent = await system.actor_of(Props(factory=Parent), "p")
            for way in ways:
                child = system.lookup("/p/c")
                if way == "stop":
                    child.stop()
                else:
                    child.tell(Fatal() if way == "fatal" else Restartable())
                await settle()
                expected.append(expected[-1] + 1 if way == "restart" else 1)
                assert lives == expected
                assert child.is_terminated is (way != "restart")
                assert await parent.ask(Do(None), timeout=1) == "/p/c"

    run(scenario)
