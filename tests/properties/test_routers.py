"""Routers and pools: only the living are reached, broadcasts account for everybody, every ask has one outcome."""

from collections import Counter

import pytest
import trio
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.actor import (
    Actor,
    ActorFailed,
    ActorStopped,
    ActorSystem,
    AskTimeout,
    ConsistentHash,
    LeastLoaded,
    MailboxFull,
    NoRoutees,
    PartialFailure,
    Pool,
    Props,
    Request,
    Resize,
    RoundRobin,
    broadcast,
    consistent_hash,
    least_loaded,
    one_for_one,
    round_robin,
    stopping,
)

from .kit import run, settle


@frozen
class Say(Request[int]):
    value: int


class Echo(Actor):
    def __init__(self, got=None):
        self.got = [] if got is None else got

    async def handle(self, message, ctx):
        if isinstance(message, Exception):
            raise message
        self.got.append((ctx.path, message))
        await trio.lowlevel.checkpoint()
        return ctx.path


ROUTERS = {
    "round_robin": round_robin,
    "least_loaded": least_loaded,
    "consistent_hash": lambda refs: consistent_hash(refs, key=lambda message: message.value),
}
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["tell", "send", "ask"]), st.integers(0, 9)),
        st.tuples(st.sampled_from(["add", "remove", "stop", "restart"]), st.integers(0, 3)),
    ),
    max_size=20,
)


@settings(max_examples=150)
@given(
    kind=st.sampled_from(sorted(ROUTERS)),
    first=st.lists(st.integers(0, 3)),
    operations=OPERATIONS,
    _seed=st.random_module(),
)
def test_a_router_reaches_one_living_routee_and_a_broadcast_all(kind, first, operations, _seed):
    got = []

    async def scenario():
        async with ActorSystem.create("t", supervisor_strategy=one_for_one(max_restarts=1000)) as system:
            refs = [await system.actor_of(Props(factory=lambda: Echo(got)), str(i)) for i in range(4)]
            router, everyone = ROUTERS[kind]([refs[i] for i in first]), broadcast([refs[i] for i in first])
            routees, owners = list(dict.fromkeys(first)), {}
            for what, argument in operations:
                got.clear()
                match what:
                    case "add":
                        router.add(refs[argument])
                        everyone.add(refs[argument])
                        if not refs[argument].is_terminated and argument not in routees:
                            routees.append(argument)
                        owners.clear()
                    case "remove":
                        router.remove(refs[argument])
                        everyone.remove(refs[argument])
                        routees = [i for i in routees if i != argument]
                        owners.clear()
                    case "stop":
                        refs[argument].stop()
                        await refs[argument].wait_terminated()
                        routees = [i for i in routees if i != argument]
                        owners.clear()
                    case "restart" if not refs[argument].is_terminated:
                        refs[argument].tell(ValueError())
                    case "tell" | "send" | "ask":
                        for target in (router, everyone):
                            got.clear()
                            if not routees:
                                with pytest.raises(NoRoutees):
                                    await pass_on(target, what, Say(argument))
                                continue
                            answer = await pass_on(target, what, Say(argument))
                            await settle()
                            reached = [path for path, _ in got]
                            if target is router:
                                (path,) = reached
                                assert path in {f"/{i}" for i in routees}
                                assert answer in (None, path)
                                if kind == "consistent_hash":
                                    assert owners.setdefault(argument, path) == path
                            else:
                                assert sorted(reached) == sorted(f"/{i}" for i in routees)
                                assert answer in (None, tuple(f"/{i}" for i in routees))
                await settle()
                assert router.routees == everyone.routees == tuple(refs[i] for i in routees)
            assert system.dead_letters.count == 0

    run(scenario)


async def pass_on(target, how, message):
    match how:
        case "tell":
            return target.tell(message)
        case "send":
            return await target.send(message)
        case _:
            return await target.ask(message, timeout=1)


@frozen
class Do(Request[int]):
    """Behave as the routee's own part of the plan says."""

    plan: tuple


@frozen
class Block:
    entered: trio.Event
    leave: trio.Event


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
OUTCOMES = {"answer": int, "fail": ActorFailed, "refuse": KeyError, "stop": ActorStopped, "full": MailboxFull}


@given(plan=st.lists(BEHAVIOUR, min_size=1, max_size=6), timeout=st.integers(1, 5), _seed=st.random_module())
def test_a_broadcast_ask_accounts_for_every_routee_by_its_deadline(plan, timeout, _seed):
    async def scenario():
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
            latest = max(after for what, after in plan if what != "full") if any(w != "full" for w, _ in plan) else 0
            assert trio.current_time() - start == min(latest, timeout - 0.5)
            assert set(answers) | set(failures) == set(refs)
            assert not set(answers) & set(failures)
            assert list(answers) == [ref for ref in refs if ref in answers]
            for i, (what, after) in enumerate(plan):
                kind = OUTCOMES[what] if after < timeout or what == "full" else AskTimeout
                assert isinstance({**answers, **failures}[refs[i]], kind)
                assert refs[i] in failures or answers[refs[i]] == i
            leave.set()

    run(scenario)


STRATEGIES = {
    "round robin": RoundRobin,
    "least loaded": LeastLoaded,
    "consistent hash": lambda: ConsistentHash(lambda message: message.value),
}


@given(
    sizes=st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(0, 4)), max_size=10),
    first=st.integers(0, 4),
    _seed=st.random_module(),
)
def test_a_pool_has_the_size_it_was_last_given_and_keeps_the_eldest(sizes, first, _seed):
    """A failing routee keeps its place; one that is stopped is not replaced before the next resize."""

    def tree(system):
        return [node.path for node in system.tree().children[0].children]

    async def scenario():
        started, alive = first, list(range(1, first + 1))
        async with ActorSystem.create("t") as system:
            ref = await system.actor_of(Props(factory=lambda: Pool(Props(factory=Echo), first)), "pool")
            for size, crash in sizes:
                assert await ref.ask(Resize(size), timeout=1) == size
                alive = alive[:size]
                for _ in range(size - len(alive)):
                    started += 1
                    alive.append(started)
                # Every routee is there and gets its turn.
                answers = [await ref.ask(Say(i), timeout=1) for i in range(size)]
                assert sorted(answers) == sorted(f"/pool/{number}" for number in alive)
                if crash is not None and alive:
                    with pytest.raises(ActorFailed):
                        await ref.ask(ValueError(), timeout=1)
                if crash is not None and crash < len(alive):
                    system.lookup(f"/pool/{alive.pop(crash)}").stop()
                if crash is not None:
                    # Else the next resize comes while the last one's routees may still be stopping.
                    await settle()
                    assert tree(system) == [f"/pool/{i}" for i in alive]
                if not alive:
                    with pytest.raises(NoRoutees):
                        await ref.ask(Say(0), timeout=1)
            await settle()
            assert tree(system) == [f"/pool/{i}" for i in alive]

    run(scenario)


class Parrot(Actor):
    async def handle(self, message, ctx):
        await trio.lowlevel.checkpoint()
        return ctx.path, message.value


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
@given(
    jobs=st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=40),
    size=st.integers(1, 4),
    _seed=st.random_module(),
)
def test_every_ask_of_a_pool_has_one_outcome_whatever_is_resized_meanwhile(strategy, jobs, size, _seed):
    """Askers and resizes run against each other; an ask gets its own answer, or its routee was stopped under it."""
    outcomes = Counter()

    async def scenario():
        async with ActorSystem.create("t") as system:
            ref = await system.actor_of(Props(factory=lambda: Pool(Props(factory=Parrot), size, strategy)), "pool")

            async def ask(value):
                try:
                    path, said = await ref.ask(Say(value), timeout=1000)
                    assert path.startswith("/pool/")
                    assert said == value
                    outcomes["answered"] += 1
                except (ActorStopped, NoRoutees):
                    outcomes["stopped"] += 1

            async with trio.open_nursery() as nursery:
                for value, resize in jobs:
                    nursery.start_soon(ask, value)
                    if resize:
                        nursery.start_soon(ref.send, Resize(value % 4))
                        await trio.lowlevel.checkpoint()
            assert trio.current_time() == 0
        assert outcomes.total() == len(jobs)
        if not any(resize for _, resize in jobs):
            assert outcomes["stopped"] == 0

    run(scenario)
