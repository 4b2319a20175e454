"""Routers and pools: who gets a message, what happens to the dead, and what a broadcast brings back."""

from collections import Counter

import pytest
import trio

from atomr_trio.actor import (
    ActorFailed,
    ActorSystem,
    ConsistentHash,
    HashRing,
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
        # Until it has been taken there is no room for the next one.
        await trio.testing.wait_all_tasks_blocked()
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


def test_a_negative_size_is_refused():
    with pytest.raises(ValueError, match="must be"):
        Resize(-1)
