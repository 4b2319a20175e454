"""Finding actors by path and by service, and hearing of changes."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.actor import ActorSystem, Listing, ServiceKey, one_for_one

from .kit import Crash, Say, recorder

KEY = ServiceKey[str]("printers")
OTHER = ServiceKey[int]("scanners")


async def test_a_path_finds_the_living_actor_and_nothing_else():
    async with ActorSystem.create("t") as system:
        parent = await system.actor_of(recorder("p", [], children={"c": recorder("c", [])}), "p")
        child = system.lookup("/p/c")
        assert system.lookup("/p") == parent
        assert child.path == "/p/c"
        for path in ("", "/", "p", "p/c", "/p/", "//p", "/c", "/p/c/d", "/p//c", "/x/c", "xp", "xp/c"):
            assert system.lookup(path) is None, path
        child.stop()
        await child.wait_terminated()
        assert system.lookup("/p/c") is None


async def test_a_service_is_found_under_an_equal_key_only():
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(recorder("a", []), "a")
        system.registry.register(KEY, ref)
        assert system.registry.find(ServiceKey("printers")) == (ref,)
        assert system.registry.find(OTHER) == ()
        system.registry.deregister(KEY, ref)
        assert ref._cell.watches._afterwards == {}


async def test_a_restart_does_not_touch_the_entry():
    listings = []
    async with ActorSystem.create("t", supervisor_strategy=one_for_one()) as system:
        ref = await system.actor_of(recorder("a", []), "a")
        system.registry.register(KEY, ref)
        system.registry.subscribe(KEY, listings.append)
        ref.tell(Crash(ValueError()))
        await ref.ask(Say(1), timeout=1)
        assert system.registry.find(KEY) == (ref,)
        assert listings == [Listing(KEY, (ref,))]


async def test_the_dead_are_not_entered():
    listings = []
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(recorder("a", []), "a")
        system.registry.subscribe(KEY, listings.append)
        ref.stop()
        await ref.wait_terminated()
        system.registry.register(KEY, ref)
        system.registry.register(OTHER, ref)
        assert system.registry.find(KEY) == ()
        assert listings == [Listing(KEY, ())]
        assert list(system.registry._services) == [KEY]


async def test_an_actor_subscribes_and_its_end_ends_the_subscription():
    notes = []
    async with ActorSystem.create("t") as system:
        watcher = await system.actor_of(recorder("w", notes), "w")
        ref = await system.actor_of(recorder("a", []), "a")
        subscription = system.registry.subscribe(KEY, watcher)
        system.registry.register(KEY, ref)
        ref.stop()
        await ref.wait_terminated()
        await watcher.ask(Say(1), timeout=1)
        assert [what for _, what in notes[1:]] == [f"got {Listing(KEY, refs)}" for refs in ((), (ref,), ())]
        watcher.stop()
        await watcher.wait_terminated()
        assert not subscription.is_open
        assert system.registry._services == {}


async def test_a_callback_that_changes_the_service_leaves_everyone_with_the_last_listing():
    first, second = [], []
    async with ActorSystem.create("t") as system:
        a = await system.actor_of(recorder("a", []), "a")
        b = await system.actor_of(recorder("b", []), "b")

        def evict(listing):
            first.append(listing.refs)
            if a in listing.refs:
                system.registry.deregister(KEY, a)

        system.registry.subscribe(KEY, evict)
        system.registry.subscribe(KEY, lambda listing: second.append(listing.refs))
        system.registry.register(KEY, b)
        system.registry.register(KEY, a)
        assert first == second == [(), (b,), (b, a), (b,)]


async def test_a_broken_subscriber_is_dropped_and_a_coroutine_function_refused(caplog):
    async def nobody_awaits(_listing):
        raise AssertionError

    async with ActorSystem.create("t") as system:
        assert not system.registry.subscribe(KEY, lambda _listing: 1 // 0).is_open
        with pytest.raises(TypeError, match="plain function"):
            system.registry.subscribe(KEY, nobody_awaits)
        assert system.registry._services == {}
    assert "is unsubscribed" in caplog.text


OPERATIONS = st.tuples(
    st.sampled_from(["register", "deregister", "stop", "pause"]), st.sampled_from([KEY, OTHER]), st.integers(0, 3)
)


@given(operations=st.lists(OPERATIONS, max_size=30), _seed=st.random_module())
async def test_entries_and_listings_follow_a_model(operations, _seed):
    """Each change is told once and in order; what is told last is what is found; in the end nothing is left."""
    told, expected = {KEY: [], OTHER: []}, {KEY: [()], OTHER: [()]}
    async with ActorSystem.create("t") as system:
        refs = [await system.actor_of(recorder(str(i), []), str(i)) for i in range(4)]
        subscriptions = [system.registry.subscribe(key, lambda new: told[new.key].append(new.refs)) for key in told]

        def change(key, after):
            if after != expected[key][-1]:
                expected[key].append(after)

        for what, key, who in operations:
            ref, now = refs[who], expected[key][-1]
            if what == "register":
                system.registry.register(key, ref)
                if not ref.is_terminated and ref not in now:
                    change(key, (*now, ref))
            elif what == "deregister":
                system.registry.deregister(key, ref)
                change(key, tuple(kept for kept in now if kept != ref))
            elif what == "stop":
                ref.stop()
                await ref.wait_terminated()
                for each in expected:
                    change(each, tuple(kept for kept in expected[each][-1] if kept != ref))
            else:
                await trio.lowlevel.checkpoint()
            for each in expected:
                assert system.registry.find(each) == expected[each][-1]
        assert told == expected
        for subscription in subscriptions:
            subscription.close()
    assert system.registry._services == {}
