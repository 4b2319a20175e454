"""The registry against a model: who is found, and that every change is told once, in order, to all who want to know."""

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.actor import Actor, ActorSystem, Listing, Props, ServiceKey, one_for_one

from .kit import run, settle

KEYS = (ServiceKey("printers"), ServiceKey("scanners"))
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["register", "register", "deregister"]), st.integers(0, 1), st.integers(0, 3)),
        st.tuples(st.sampled_from(["stop", "restart"]), st.just(0), st.integers(0, 3)),
        st.tuples(st.sampled_from(["subscribe", "subscribe actor"]), st.integers(0, 1), st.just(0)),
        st.tuples(st.sampled_from(["close", "break"]), st.just(0), st.integers(0, 9)),
    ),
    max_size=30,
)


class Member(Actor):
    async def handle(self, message, ctx):
        raise message


class Reader(Actor):
    def __init__(self, got):
        self.got = got

    def handle(self, message, ctx):
        self.got.append(message)


class Subscriber:
    """What one of them was told, and should have been."""

    def __init__(self, key):
        self.key, self.got, self.expected, self.is_open, self.breaks = key, [], [], True, False

    def __call__(self, listing):
        self.got.append(listing)
        if self.breaks:
            raise ValueError


@settings(max_examples=150)
@given(operations=OPERATIONS, _seed=st.random_module())
def test_entries_and_listings_are_the_models(operations, _seed):
    async def scenario():
        entries, subscribers = {key: [] for key in KEYS}, []
        async with ActorSystem.create("t", supervisor_strategy=one_for_one(max_restarts=100)) as system:
            refs = [await system.actor_of(Props(factory=Member), str(i)) for i in range(4)]

            def tell(key):
                for subscriber, _, _ in subscribers:
                    if subscriber.key is key and subscriber.is_open:
                        subscriber.expected.append(Listing(key, tuple(entries[key])))
                        subscriber.is_open = not subscriber.breaks

            def remove(key, ref):
                if ref in entries[key]:
                    entries[key].remove(ref)
                    tell(key)

            for i, (what, which, who) in enumerate(operations):
                key, ref = KEYS[which], refs[who % 4]
                match what:
                    case "register":
                        if not ref.is_terminated and ref not in entries[key]:
                            entries[key].append(ref)
                            tell(key)
                        system.registry.register(ServiceKey(key.id), ref)
                    case "deregister":
                        remove(key, ref)
                        system.registry.deregister(key, ref)
                    case "stop":
                        for each in KEYS:
                            remove(each, ref)
                        ref.stop()
                    case "restart":
                        if not ref.is_terminated:
                            ref.tell(KeyError())
                    case "subscribe" | "subscribe actor":
                        subscriber = Subscriber(key)
                        subscriber.expected.append(Listing(key, tuple(entries[key])))
                        target = subscriber
                        if what == "subscribe actor":
                            target = await system.actor_of(
                                Props(factory=lambda got=subscriber.got: Reader(got)), f"reader {i}"
                            )
                        subscribers.append((subscriber, system.registry.subscribe(key, target), target))
                    case _ if subscribers:
                        subscriber, subscription, target = subscribers[who % len(subscribers)]
                        if what == "break" and target is subscriber:
                            subscriber.breaks = True
                        elif what == "break":
                            subscriber.is_open = False
                            target.stop()
                        else:
                            subscriber.is_open = False
                            subscription.close()
                await settle()
                for each in KEYS:
                    assert system.registry.find(each) == tuple(entries[each])
                for subscriber, subscription, _ in subscribers:
                    assert subscriber.got == subscriber.expected
                    assert subscription.is_open is subscriber.is_open
            assert system.dead_letters.count == 0

    run(scenario)


@given(lives=st.lists(st.booleans(), min_size=1, max_size=8), _seed=st.random_module())
def test_a_path_finds_the_living_and_nobody_else(lives, _seed):
    """Names are free again after a death, and what is found then is the new one."""

    async def scenario():
        async with ActorSystem.create("t") as system:
            seen = []
            for stops in lives:
                ref = system.lookup("/a") or await system.actor_of(Props(factory=Member), "a")
                assert system.lookup("/a") == ref
                assert (ref in seen) is (bool(seen) and not seen[-1].is_terminated)
                seen.append(ref)
                if stops:
                    ref.stop()
                    await ref.wait_terminated()
                    assert system.lookup("/a") is None
                for path in ("", "/", "a", "/a/", "//a", "/a/a", "/b"):
                    assert system.lookup(path) is None
                await trio.lowlevel.checkpoint()

    run(scenario)
