"""Routers and pools: who gets a message, what happens to the dead, and what a broadcast brings back."""

from collections import Counter

import pytest
import trio
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.actor import (
    Actor,
    ActorFailed,
    ActorStopped,
    ActorSystem,
    AskTimeout,
    ConsistentHash,
    HashRing,
    LeastLoaded,
    MailboxFull,
    NoRoutees,
    PartialFailure,
    Pool,
    Props,
    Request,
    Resize,
    RoundRobin,
    ServiceKey,
    broadcast,
    consistent_hash,
    least_loaded,
    round_robin,
    stopping,
)

from .kit import Block, Crash, Say, recorder

# The ring, without any actor.

NODES = st.sets(st.text(max_size=5), min_size=1, max_size=8)
KEYS = st.lists(st.text(max_size=8) | st.binary(max_size=8) | st.integers(), max_size=50)


@given(nodes=NODES, new=st.text(max_size=5), keys=KEYS)
def test_a_new_node_takes_keys_only_to_itself_and_leaving_gives_exactly_those_back(nodes, new, keys):
    without = HashRing(nodes - {new}, virtual_nodes=8)
    with_new = HashRing(nodes | {new}, virtual_nodes=8)
    for key in keys:
        owner = with_new.owner(key)
        if nodes == {new}:
            assert owner == new
        elif owner != new:
            assert without.owner(key) == owner


@given(nodes=st.lists(st.text(max_size=5), min_size=1, max_size=8), keys=KEYS)
def test_the_order_and_the_repetition_of_nodes_do_not_matter(nodes, keys):
    ring, other = HashRing(nodes, virtual_nodes=4), HashRing(reversed(nodes * 2), virtual_nodes=4)
    assert [ring.owner(key) for key in keys] == [other.owner(key) for key in keys]


def test_keys_spread_evenly_and_equally_in_every_process():
    ring = HashRing([f"/pool/{i}" for i in range(10)])
    shares = Counter(ring.owner(i) for i in range(10_000))
    assert len(shares) == 10
    assert max(shares.values()) < 1400
    assert min(shares.values()) > 600
    assert [ring.owner(key) for key in ("a", b"a", 1, "1", "")] == [f"/pool/{i}" for i in [7, 7, 4, 4, 5]]
    with pytest.raises(LookupError, match="no nodes"):
        HashRing(()).owner("a")


class Stub:
    """Has what a strategy looks at."""

    def __init__(self, name, queued=0):
        self.path, self.queued = name, queued


@given(rounds=st.lists(st.integers(1, 5), max_size=40))
def test_round_robin_is_fair_while_the_routees_stay_and_never_out_of_range(rounds):
    strategy = RoundRobin()
    for count in rounds:
        routees = tuple(Stub(str(i)) for i in range(count))
        picked = Counter(strategy.pick(None, routees).path for _ in range(3 * count))
        assert picked == {str(i): 3 for i in range(count)}


@given(loads=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), max_size=30))
def test_least_loaded_takes_a_minimum_and_equals_in_turn(loads):
    strategy = LeastLoaded()
    for queued in loads:
        routees = tuple(Stub(str(i), load) for i, load in enumerate(queued))
        idlest = [routee for routee in routees if routee.queued == min(queued)]
        assert Counter(strategy.pick(None, routees) for _ in idlest) == Counter(idlest)


def test_the_same_key_goes_to_the_same_routee():
    routees = tuple(Stub(str(i)) for i in range(5))
    one, other = ConsistentHash(len), ConsistentHash(len)
    assert [one.pick("x" * i, routees) for i in range(20)] == [other.pick("y" * i, routees) for i in range(20)]
    fewer = tuple(routee for routee in routees if routee is not one.pick("x", routees))
    assert one.pick("x", fewer) in fewer
    with pytest.raises(ValueError, match="must be"):
        ConsistentHash(len, 0)


# Routers over living actors.


async def spawn(system, count, events, **options):
    return [await system.actor_of(recorder(str(i), events, **options), str(i)) for i in range(count)]


@pytest.mark.parametrize("make", [round_robin, least_loaded, lambda refs: consistent_hash(refs, key=str), broadcast])
async def test_the_dead_are_skipped_and_the_last_one_leaves_a_typed_error(make):
    events = []
    async with ActorSystem.create("t") as system:
        refs = await spawn(system, 3, events)
        router = make([*refs, refs[0]])
        assert router.routees == tuple(refs)
        refs[1].stop()
        await refs[1].wait_terminated()
        for i in range(6):
            router.tell(f"{i}")
            await router.send(f"{i}")
            assert await router.ask(Say(i), timeout=1) in (i, (i, i))
        assert router.routees == (refs[0], refs[2])
        assert system.dead_letters.count == 0
        router.remove(refs[0])
        refs[2].stop()
        await refs[2].wait_terminated()
        for attempt in (lambda: router.send("x"), lambda: router.ask(Say(1), timeout=1)):
            with pytest.raises(NoRoutees):
                await attempt()
        with pytest.raises(NoRoutees, match="has no routees"):
            router.tell("x")
        router.add(refs[0])
        router.tell("again")
        await refs[0].ask(Say(1), timeout=1)
    assert ("0", "got again") in events
    assert not any(who == "1" and what.startswith("got") for who, what in events)


async def test_a_router_does_what_the_ref_does():
    async with ActorSystem.create("t", supervisor_strategy=stopping()) as system:
        ref = await system.actor_of(recorder("a", [], capacity=1), "a")
        router = round_robin([ref])
        entered, leave = trio.Event(), trio.Event()
        router.tell(Block(entered, leave))
        await entered.wait()
        router.tell("fits")
        assert ref.queued == 1
        with pytest.raises(MailboxFull):
            router.tell("does not fit")
        leave.set()
        await router.send("waits for room")
        with pytest.raises(ActorFailed):
            await router.ask(Crash(ValueError()), timeout=1)


async def test_least_loaded_avoids_the_busy_routee():
    events = []
    async with ActorSystem.create("t") as system:
        refs = await spawn(system, 2, events)
        router = least_loaded(refs)
        entered, leave = trio.Event(), trio.Event()
        refs[0].tell(Block(entered, leave))
        await entered.wait()
        refs[0].tell("queued")
        for i in range(4):
            assert await router.ask(Say(i), timeout=1) == i
        leave.set()
    assert [what for who, what in events if who == "0"] == ["start1", "left the block", "got queued", "stop"]


async def test_a_router_follows_a_service():
    key = ServiceKey[object]("workers")
    async with ActorSystem.create("t") as system:
        refs = await spawn(system, 2, [])
        router = round_robin()
        with system.registry.subscribe(key, lambda listing: router.replace(listing.refs)):
            for ref in refs:
                system.registry.register(key, ref)
            assert router.routees == tuple(refs)
            system.registry.deregister(key, refs[0])
            assert router.routees == (refs[1],)


# Broadcasts.


async def test_a_broadcast_tells_all_and_names_those_who_could_not_take_it():
    events = []
    async with ActorSystem.create("t") as system:
        refs = await spawn(system, 3, events, capacity=1)
        router = broadcast(refs, name="everyone")
        entered, leave = trio.Event(), trio.Event()
        refs[1].tell(Block(entered, leave))
        await entered.wait()
        refs[1].tell("fills")
        with pytest.raises(PartialFailure, match="1 of 3 routees of everyone failed: /1") as caught:
            router.tell("news")
        assert isinstance(caught.value.failures[refs[1]], MailboxFull)
        assert set(caught.value.answers) == {refs[0], refs[2]}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(router.send, "waits")
            await trio.testing.wait_all_tasks_blocked()
            assert ("0", "got waits") in events
            leave.set()
    for who in "012":
        assert ("0", "got waits") in events
        assert ((who, "got news") in events) is (who != "1")


@frozen
class Do(Request[int]):
    """Behave as the routee's own part of the plan says."""

    plan: tuple


class Routee(Actor):
    def __init__(self, number):
        self.number = number

    async def handle(self, message, ctx):
        if isinstance(message, Block):
            message.entered.set()
            await message.leave.wait()
            return None
        what, after = message.plan[self.number]
        await trio.sleep(after)
        if what == "fail":
            raise ValueError(self.number)
        if what == "refuse":
            ctx.fail(KeyError(self.number))
        if what == "stop":
            ctx.defer_reply()
            ctx.stop()
        return self.number


BEHAVIOUR = st.tuples(st.sampled_from(["answer", "fail", "refuse", "stop", "full"]), st.integers(0, 6))


@given(plan=st.lists(BEHAVIOUR, min_size=1, max_size=6), timeout=st.integers(1, 5), _seed=st.random_module())
def test_a_broadcast_ask_accounts_for_every_routee_by_its_deadline(plan, timeout, _seed):
    async def scenario():
        expected = {"answer": int, "fail": ActorFailed, "refuse": KeyError, "stop": ActorStopped, "full": MailboxFull}
        leave = trio.Event()
        async with ActorSystem.create("t", supervisor_strategy=stopping()) as system:
            refs = []
            for i, (what, _) in enumerate(plan):
                props = Props(factory=lambda number=i: Routee(number), capacity=1, shutdown=0.1)
                refs.append(await system.actor_of(props, str(i)))
                if what == "full":
                    entered = trio.Event()
                    refs[i].tell(Block(entered, leave))
                    await entered.wait()
                    refs[i].tell(Block(trio.Event(), leave))
            start = trio.current_time()
            try:
                result = await broadcast(refs).ask(Do(tuple(plan)), timeout=timeout - 0.5)
                answers, failures = dict(zip(refs, result, strict=True)), {}
            except PartialFailure as partial:
                answers, failures = partial.answers, partial.failures
                assert failures
            assert trio.current_time() - start <= timeout - 0.49
            assert set(answers) | set(failures) == set(refs)
            assert not set(answers) & set(failures)
            assert list(answers) == [ref for ref in refs if ref in answers]
            for i, (what, after) in enumerate(plan):
                kind = expected[what] if after < timeout or what == "full" else AskTimeout
                assert isinstance({**answers, **failures}[refs[i]], kind)
                assert refs[i] in failures or answers[refs[i]] == i
            leave.set()

    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_cancelled_broadcast_ask_leaves_no_question_open():
    async with ActorSystem.create("t") as system:
        refs = await spawn(system, 2, [])
        entered, leave = trio.Event(), trio.Event()
        refs[0].tell(Block(entered, leave))
        await entered.wait()
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: broadcast(refs).ask(Say(1), timeout=1000))
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel(reason="test")
        leave.set()
        await refs[0].ask(Say(2), timeout=1)
        assert [letter.reason for letter in system.dead_letters.recent] == ["nobody waits for the answer"]


# Pools.


def pool(events, size, strategy=RoundRobin, *, capacity=1024, **options):
    worker = recorder("w", events, capacity=capacity)
    return Props(factory=lambda: Pool(worker, size, strategy, **options))


class _Where(Request):
    async def __call__(self, _actor, ctx):
        return ctx.path


WHERE = _Where()


async def test_a_pool_passes_messages_on_and_answers_come_back():
    events = []
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(pool(events, 3), "pool")
        assert [what for _, what in events] == ["start1"] * 3
        assert [await ref.ask(WHERE, timeout=1) for _ in range(6)] == ["/pool/1", "/pool/2", "/pool/3"] * 2
        ref.tell("news")
        with pytest.raises(KeyError, match="refused"):
            await ref.ask(refusal(), timeout=1)
    assert ("w", "got news") in events


def refusal():
    async def message(_actor, ctx):
        ctx.fail(KeyError("refused"))

    return message


async def test_a_failing_routee_restarts_in_its_place_and_its_ask_fails():
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(pool([], 2), "pool")
        with pytest.raises(ActorFailed) as caught:
            await ref.ask(Crash(ValueError("boom")), timeout=1)
        assert caught.value.path == "/pool/1"
        assert [await ref.ask(WHERE, timeout=1) for _ in range(2)] == ["/pool/2", "/pool/1"]
        nodes = system.tree().children[0].children
        assert [(node.path, node.restarts) for node in nodes] == [("/pool/1", 1), ("/pool/2", 0)]


async def test_a_routee_that_stops_for_good_is_skipped_and_an_empty_pool_says_so():
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(pool([], 2, supervisor_strategy=stopping()), "pool")
        for _ in range(2):
            with pytest.raises(ActorFailed):
                await ref.ask(Crash(ValueError()), timeout=1)
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(NoRoutees, match="/pool has no routees"):
            await ref.ask(WHERE, timeout=1)
        ref.tell("nobody")
        assert await ref.ask(Resize(1), timeout=1) == 1
        assert await ref.ask(WHERE, timeout=1) == "/pool/3"
        reasons = [(letter.path, letter.reason) for letter in system.dead_letters.recent]
        assert reasons == [("/pool", "/pool has no routees")] * 2


async def test_a_full_routee_fails_the_ask_and_not_the_pool():
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(pool([], 1, capacity=1), "pool")
        entered, leave = trio.Event(), trio.Event()
        ref.tell(Block(entered, leave))
        await entered.wait()
        ref.tell("fits")
        with pytest.raises(MailboxFull, match="/pool/1"):
            await ref.ask(WHERE, timeout=1)
        ref.tell("lost")
        await trio.testing.wait_all_tasks_blocked()
        assert [letter.message for letter in system.dead_letters.recent] == [WHERE, "lost"]
        leave.set()
        await trio.testing.wait_all_tasks_blocked()
        assert await ref.ask(WHERE, timeout=1) == "/pool/1"


async def test_the_callee_knows_the_asker_s_deadline(autojump_clock):
    async def deadline(_actor, ctx):
        return ctx.deadline

    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(pool([], 1), "pool")
        assert await ref.ask(deadline, timeout=7) == trio.current_time() + 7


@given(sizes=st.lists(st.integers(0, 5), max_size=10), first=st.integers(0, 4), _seed=st.random_module())
async def test_a_pool_has_the_size_it_was_last_given_and_keeps_the_eldest(sizes, first, _seed):
    started, alive = first, list(range(1, first + 1))
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(pool([], first), "pool")
        for size in sizes:
            assert await ref.ask(Resize(size), timeout=1) == size
            alive = alive[:size]
            for _ in range(size - len(alive)):
                started += 1
                alive.append(started)
            # Every routee is there and gets its turn.
            answers = [await ref.ask(WHERE, timeout=1) for _ in range(size)]
            assert sorted(answers) == sorted(f"/pool/{number}" for number in alive)
        await trio.testing.wait_all_tasks_blocked()
        assert [node.path for node in system.tree().children[0].children] == [f"/pool/{number}" for number in alive]


def test_a_negative_size_is_refused():
    with pytest.raises(ValueError, match="must be"):
        Resize(-1)


@given(
    jobs=st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=40),
    size=st.integers(1, 4),
    _seed=st.random_module(),
)
async def test_every_ask_of_a_pool_has_one_outcome_whatever_is_resized_meanwhile(jobs, size, _seed):
    """Askers and resizes run against each other; an ask is answered, or its routee was stopped under it."""
    outcomes = Counter()
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(pool([], size, lambda: ConsistentHash(lambda message: message.value)), "pool")

        async def ask(value):
            try:
                assert await ref.ask(Say(value), timeout=1000) == value
                outcomes["answered"] += 1
            except (ActorStopped, NoRoutees):
                outcomes["stopped"] += 1

        async with trio.open_nursery() as nursery:
            for value, resize in jobs:
                nursery.start_soon(ask, value)
                if resize:
                    nursery.start_soon(ref.send, Resize(value % 4))
                    await trio.lowlevel.checkpoint()
        assert outcomes.total() == len(jobs)
        if not any(resize for _, resize in jobs):
            assert outcomes["stopped"] == 0
