"""Who hears of what: events, the registry, routers and pools, each against a model of a few lines."""

import pytest
import trio
from attrs import define, field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.actor import (
    Actor,
    ActorFailed,
    ActorStopped,
    ActorSystem,
    AskTimeout,
    ConsistentHash,
    DeadLetter,
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
    one_for_one,
    round_robin,
)

from .kit import run, settle

# Events.


@frozen
class Base:
    number: int
    depth: int = 0


@frozen
class Derived(Base):
    pass


@frozen
class Other:
    number: int
    depth: int = 0


KINDS = (Base, Derived, Other)


@define
class Listener:
    """A subscriber as the model sees it: ``how`` it behaves when it is told something."""

    name: int
    kind: type
    how: str
    is_open: bool = True


def echo(listener, event):
    return type(event)(10 * event.number + listener.name, event.depth + 1)


@define
class EventModel:
    """First come, first served: an event is told to all before the next, to subscribers by class, then by age."""

    listeners: list = field(factory=list)
    log: list = field(factory=list)

    def publish(self, event):
        queue = [self.addressed(event)]
        while queue:
            current, listeners = queue.pop(0)
            for listener in listeners:
                if not listener.is_open:
                    continue
                self.log.append((listener.name, current))
                if listener.how == "echo" and current.depth < 2:
                    queue.append(self.addressed(echo(listener, current)))
                if listener.how in ("fail", "leave"):
                    listener.is_open = False

    def addressed(self, event):
        found = [each for each in self.listeners if each.is_open and isinstance(event, each.kind)]
        return event, sorted(found, key=lambda each: type(event).__mro__.index(each.kind))


EVENT_OPERATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("subscribe"), st.sampled_from(KINDS), st.sampled_from(["listen", "echo", "echo", "fail", "leave"])
        ),
        st.tuples(st.just("publish"), st.sampled_from(KINDS)),
        st.tuples(st.just("close"), st.integers(0, 9)),
    ),
    max_size=16,
)


@settings(max_examples=150)
@given(operations=EVENT_OPERATIONS, _seed=st.random_module())
def test_events_reach_whoever_asked_for_them_once_and_in_one_order(operations, _seed):
    model, log, subscriptions = EventModel(), [], []

    async def scenario():
        async with ActorSystem.create("t") as system:

            def subscriber(listener):
                def told(event):
                    log.append((listener.name, event))
                    if listener.how == "echo" and event.depth < 2:
                        system.events.publish(echo(listener, event))
                    if listener.how == "leave":
                        subscriptions[listener.name].close()
                    if listener.how == "fail":
                        raise ValueError

                return told

            for number, (what, *arguments) in enumerate(operations):
                match what, arguments:
                    case "subscribe", [kind, how]:
                        listener = Listener(len(subscriptions), kind, how)
                        model.listeners.append(listener)
                        subscriptions.append(system.events.subscribe(kind, subscriber(listener)))
                    case "publish", [kind]:
                        model.publish(kind(number))
                        system.events.publish(kind(number))
                    case "close", [index] if index < len(subscriptions):
                        model.listeners[index].is_open = False
                        subscriptions[index].close()
                assert log == model.log
                assert [each.is_open for each in subscriptions] == [each.is_open for each in model.listeners]

    run(scenario)


class Collector(Actor):
    """Takes notes; a number makes it busy for so long."""

    def __init__(self, notes):
        self.notes = notes

    async def handle(self, message, ctx):
        if isinstance(message, Exception):
            raise message
        if isinstance(message, float):
            await trio.sleep(message)
        else:
            self.notes.append(message)


@settings(max_examples=60)
@given(
    capacity=st.integers(1, 4),
    published=st.integers(0, 8),
    own_letters=st.integers(0, 3),
    restarts=st.booleans(),
    _seed=st.random_module(),
)
def test_an_actors_subscription_fills_its_mailbox_and_ends_with_it(capacity, published, own_letters, restarts, _seed):
    notes = []

    async def scenario():
        async with ActorSystem.create("t", supervisor_strategy=one_for_one()) as system:
            ref = await system.actor_of(Props(factory=lambda: Collector(notes), capacity=capacity), "collector")
            if restarts:
                ref.tell(ValueError())
            told = system.events.subscribe(Base, ref)
            lost = system.events.subscribe(DeadLetter, ref)
            await settle()
            ref.tell(1.0)
            await settle()
            for number in range(published):
                system.events.publish(Derived(number))
            before = system.dead_letters.count
            assert before == max(0, published - capacity)
            for number in range(min(before, 100)):
                letter = system.dead_letters.recent[number]
                assert (letter.path, letter.message) == (ref.path, Derived(capacity + number))
            await trio.sleep(2)
            # Not of its own losses, which would be lost in turn.
            assert notes == [Derived(number) for number in range(min(published, capacity))]
            notes.clear()
            ref.tell(1.0)
            await settle()
            for number in range(own_letters):
                system.dead_letters.record(DeadLetter("/elsewhere", number, "lost"))
            await trio.sleep(2)
            assert [letter.message for letter in notes] == list(range(own_letters))[:capacity]
            ref.stop()
            await ref.wait_terminated()
            after = system.dead_letters.count
            system.events.publish(Base(0))
            assert (told.is_open, lost.is_open) == (False, False)
            assert system.dead_letters.count == after

    run(scenario)


# The registry.

KEYS = (ServiceKey("one"), ServiceKey("two"))
ACTOR = st.integers(0, 3)
KEY = st.integers(0, 1)
REGISTRY_OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("register"), KEY, ACTOR),
        st.tuples(st.just("deregister"), KEY, ACTOR),
        st.tuples(st.just("stop"), ACTOR),
        st.tuples(st.just("crash"), ACTOR),
        st.tuples(st.just("subscribe"), KEY),
        st.tuples(st.just("unsubscribe"), st.integers(0, 3)),
    ),
    max_size=20,
)


@settings(max_examples=150)
@given(operations=REGISTRY_OPERATIONS, _seed=st.random_module())
def test_the_registry_lists_the_living_and_tells_of_every_change(operations, _seed):
    living, model = set(range(4)), ([], [])
    heard, expected, subscriptions = [], [], []

    async def scenario():
        async with ActorSystem.create("t", supervisor_strategy=one_for_one(max_restarts=99)) as system:
            props = Props(factory=lambda: Collector([]))
            refs = [await system.actor_of(props, str(i)) for i in range(4)]

            def announce(key):
                for index, subscription in enumerate(subscriptions):
                    if subscription.is_open and expected[index][0] == key:
                        expected[index][1].append(tuple(model[key]))

            def vanish(actor):
                for key in (0, 1):
                    if actor in model[key]:
                        model[key].remove(actor)
                        announce(key)

            for what, *arguments in operations:
                match what, arguments:
                    case "register", [key, actor]:
                        if actor in living and actor not in model[key]:
                            model[key].append(actor)
                            announce(key)
                        system.registry.register(KEYS[key], refs[actor])
                    case "deregister", [key, actor]:
                        if actor in model[key]:
                            model[key].remove(actor)
                            announce(key)
                        system.registry.deregister(KEYS[key], refs[actor])
                    case "stop", [actor]:
                        living.discard(actor)
                        vanish(actor)
                        refs[actor].stop()
                    case "crash", [actor]:
                        refs[actor].tell(ValueError())
                    case "subscribe", [key]:
                        told = []
                        heard.append(told)
                        expected.append((key, [tuple(model[key])]))
                        subscriptions.append(system.registry.subscribe(KEYS[key], told.append))
                    case "unsubscribe", [index] if index < len(subscriptions):
                        subscriptions[index].close()
                await settle()
                for key in (0, 1):
                    assert system.registry.find(KEYS[key]) == tuple(refs[actor] for actor in model[key])
                listed = [[tuple(refs.index(ref) for ref in each.refs) for each in told] for told in heard]
                assert listed == [listings for _, listings in expected]
                assert all(
                    each.key == KEYS[key] for told, (key, _) in zip(heard, expected, strict=True) for each in told
                )

    run(scenario)


# Routing strategies, without actors.


@frozen
class Routee:
    path: str
    queued: int = 0


PATHS = st.lists(st.text("abcd", min_size=1, max_size=3), min_size=1, max_size=6, unique=True)
SOME_KEYS = [f"key {i}" for i in range(64)]
OWNERS = "ccaaaaaaaaccbaccbccbccca"
"""Of the keys 0 to 23 on a ring of a, b and c."""


@given(paths=PATHS, rounds=st.integers(1, 3))
def test_round_robin_takes_everyone_in_turn(paths, rounds):
    routees = tuple(map(Routee, paths))
    strategy = RoundRobin()
    assert [strategy.pick(None, routees) for _ in range(rounds * len(routees))] == list(routees) * rounds


@given(queues=st.lists(st.integers(0, 3), min_size=1, max_size=6), picks=st.integers(1, 12))
def test_least_loaded_takes_the_shortest_queue_and_equal_ones_in_turn(queues, picks):
    routees = tuple(Routee(str(i), queued) for i, queued in enumerate(queues))
    best = [routee for routee in routees if routee.queued == min(queues)]
    strategy = LeastLoaded()
    picked = [strategy.pick(None, routees) for _ in range(picks)]
    assert picked == [best[i % len(best)] for i in range(picks)]


@given(paths=PATHS, new=st.text("efg", min_size=1, max_size=3), data=st.data())
def test_a_ring_moves_no_key_without_need(paths, new, data):
    ring = HashRing(paths)
    owners = {key: ring.owner(key) for key in SOME_KEYS}
    assert set(owners.values()) <= set(paths)
    shuffled = HashRing(data.draw(st.permutations(paths)))
    assert {key: shuffled.owner(key) for key in SOME_KEYS} == owners
    grown = HashRing([*paths, new])
    assert all(grown.owner(key) in (owners[key], new) for key in SOME_KEYS)


def test_a_ring_is_the_same_in_every_process_and_spreads_the_keys():
    ring = HashRing(["a", "b", "c"])
    owners = "".join(ring.owner(i) for i in range(24))
    assert owners == "".join(ring.owner(str(i)) for i in range(24))
    assert owners == OWNERS
    shares = [sum(ring.owner(i) == node for i in range(3000)) for node in "abc"]
    assert min(shares) > 600


@given(histories=st.lists(PATHS, min_size=1, max_size=4))
def test_consistent_hashing_follows_every_change_of_the_routees(histories):
    strategy = ConsistentHash(lambda message: message)
    for paths in histories:
        routees = tuple(map(Routee, paths))
        ring = HashRing(paths)
        assert [strategy.pick(key, routees).path for key in SOME_KEYS] == [ring.owner(key) for key in SOME_KEYS]


# Routers over actors.

ROUTER_OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("tell"), st.integers(0, 9)),
        st.tuples(st.just("tell"), st.integers(0, 9)),
        st.tuples(st.just("stop"), ACTOR),
        st.tuples(st.just("add"), ACTOR),
        st.tuples(st.just("remove"), ACTOR),
    ),
    max_size=24,
)


@settings(max_examples=100)
@given(
    make=st.sampled_from([round_robin, lambda routees: consistent_hash(routees, key=lambda message: message)]),
    operations=ROUTER_OPERATIONS,
    _seed=st.random_module(),
)
def test_a_router_sends_each_message_once_to_somebody_who_lives(make, operations, _seed):
    notes = [[] for _ in range(4)]

    async def scenario():
        async with ActorSystem.create("t") as system:
            refs = [await system.actor_of(Props(factory=lambda i=i: Collector(notes[i])), str(i)) for i in range(4)]
            router, model = make(refs[:2]), [0, 1]
            for what, value in operations:
                before = [len(each) for each in notes]
                match what:
                    case "tell" if model:
                        router.tell(value)
                    case "tell":
                        with pytest.raises(NoRoutees):
                            router.tell(value)
                    case "stop":
                        refs[value].stop()
                        model = [each for each in model if each != value]
                    case "add":
                        router.add(refs[value])
                        model += [] if value in model or refs[value].is_terminated else [value]
                    case "remove":
                        router.remove(refs[value])
                        model = [each for each in model if each != value]
                await settle()
                assert router.routees == tuple(refs[each] for each in model)
                got = [i for i in range(4) if len(notes[i]) > before[i]]
                assert sum(map(len, notes)) == sum(before) + (what == "tell" and bool(model))
                assert set(got) <= set(model)
            assert system.dead_letters.count == 0

    run(scenario)


@settings(max_examples=60)
@given(fill=st.lists(st.integers(0, 2), min_size=1, max_size=5), _seed=st.random_module())
def test_a_broadcast_reaches_all_who_have_room_and_names_the_others(fill, _seed):
    notes = [[] for _ in fill]

    async def scenario():
        async with ActorSystem.create("t") as system:
            props = [Props(factory=lambda each=each: Collector(each), capacity=2) for each in notes]
            refs = [await system.actor_of(each, str(i)) for i, each in enumerate(props)]
            for ref, queued in zip(refs, fill, strict=True):
                ref.tell(1.0)
                await settle()
                for _ in range(queued):
                    ref.tell("old")
            full = [ref for ref, queued in zip(refs, fill, strict=True) if queued == 2]
            if full:
                with pytest.raises(PartialFailure) as failure:
                    broadcast(refs).tell("new")
                assert list(failure.value.failures) == full
                assert all(isinstance(error, MailboxFull) for error in failure.value.failures.values())
                assert list(failure.value.answers) == [ref for ref in refs if ref not in full]
            else:
                broadcast(refs).tell("new")
            await trio.sleep(2)
            assert notes == [["old"] * queued + ["new"] * (queued < 2) for queued in fill]

    run(scenario)


@frozen
class Question(Request[str]):
    pass


class Answerer(Actor):
    def __init__(self, name, how):
        self.name, self.how = name, how

    async def handle(self, message, ctx):
        if isinstance(self.how, int):
            await trio.sleep(self.how)
        elif self.how == "fail":
            raise ValueError
        else:
            ctx.stop()
            ctx.defer_reply()
        return self.name


@settings(max_examples=80)
@given(
    hows=st.lists(st.sampled_from([0, 1, 3, 20, "fail", "stop"]), min_size=1, max_size=5),
    timeout=st.sampled_from([2, 5]),
    _seed=st.random_module(),
)
def test_a_broadcast_ask_sorts_every_routee_into_answers_and_failures(hows, timeout, _seed):
    wrong = {"fail": ActorFailed, "stop": ActorStopped}

    async def scenario():
        async with ActorSystem.create("t", supervisor_strategy=one_for_one()) as system:
            refs = [
                await system.actor_of(Props(factory=lambda i=i, how=how: Answerer(i, how)), str(i))
                for i, how in enumerate(hows)
            ]
            timely = [isinstance(how, int) and how < timeout for how in hows]
            began = trio.current_time()
            if all(timely):
                assert await broadcast(refs).ask(Question(), timeout=timeout) == tuple(range(len(hows)))
            else:
                with pytest.raises(PartialFailure) as failure:
                    await broadcast(refs).ask(Question(), timeout=timeout)
                answers, failures = failure.value.answers, failure.value.failures
                assert answers == {refs[i]: i for i in range(len(hows)) if timely[i]}
                assert {ref: type(error) for ref, error in failures.items()} == {
                    refs[i]: wrong.get(how, AskTimeout) for i, how in enumerate(hows) if not timely[i]
                }
            assert trio.current_time() - began <= timeout

    run(scenario)


# Pools.


class Member(Actor):
    async def handle(self, message, ctx):
        if isinstance(message, float):
            await trio.sleep(message)
        return ctx.path


POOL_OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("resize"), st.integers(0, 4)),
        st.tuples(st.just("stop"), st.integers(0, 3)),
        st.tuples(st.just("ask"), st.just(0)),
    ),
    max_size=10,
)


@settings(max_examples=100)
@given(size=st.integers(0, 3), operations=POOL_OPERATIONS, _seed=st.random_module())
def test_a_pool_has_the_size_it_was_given_and_lets_the_youngest_go(size, operations, _seed):
    async def scenario():
        async with ActorSystem.create("t") as system:
            pool = await system.actor_of(Props(factory=lambda: Pool(Props(factory=Member), size)), "pool")
            model, started = [f"/pool/{i + 1}" for i in range(size)], size
            for what, value in operations:
                match what:
                    case "resize":
                        fresh = [f"/pool/{started + i + 1}" for i in range(value - len(model))]
                        model, started = [*model[:value], *fresh], started + len(fresh)
                        assert await pool.ask(Resize(value), timeout=1) == value
                    case "stop" if value < len(model):
                        system.lookup(model.pop(value)).stop()
                    case "ask" if model:
                        answers = [await pool.ask(Question(), timeout=1) for _ in range(2 * len(model))]
                        assert {answers.count(path) for path in model} == {2}
                    case "ask":
                        with pytest.raises(NoRoutees):
                            await pool.ask(Question(), timeout=1)
                await settle()
                children = next(node for node in system.tree().children if node.path == "/pool").children
                assert [child.path for child in children] == model

    run(scenario)


@settings(max_examples=40)
@given(size=st.integers(1, 3), capacity=st.integers(1, 3), excess=st.integers(0, 3), _seed=st.random_module())
def test_what_a_full_pool_cannot_take_fails_at_once_and_is_a_dead_letter(size, capacity, excess, _seed):
    async def scenario():
        async with ActorSystem.create("t") as system:
            letters, outcomes = [], []
            system.events.subscribe(DeadLetter, letters.append)
            props = Props(factory=Member, capacity=capacity)
            pool = await system.actor_of(Props(factory=lambda: Pool(props, size)), "pool")
            for _ in range(size):
                pool.tell(5.0)
            await settle()

            async def ask():
                try:
                    await pool.ask(Question(), timeout=100)
                    outcomes.append(("answered", trio.current_time() - began))
                except MailboxFull:
                    outcomes.append(("full", trio.current_time() - began))

            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                for _ in range(size * capacity + excess):
                    nursery.start_soon(ask)
            assert sorted(outcomes) == [("answered", 5.0)] * size * capacity + [("full", 0.0)] * excess
            assert [type(letter.message) for letter in letters] == [Question] * excess

    run(scenario)
