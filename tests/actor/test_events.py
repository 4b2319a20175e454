"""The event stream: who is told what, in which order, and that nobody can hurt the publisher."""

import pytest
import trio

from atomr_trio.actor import ActorSystem, DeadLetter, EventStream
from atomr_trio.actor._events import NESTED_EVENTS
from atomr_trio.actor._mailbox import DeadLetters

from .kit import Block, Say, recorder


def stream():
    return EventStream(DeadLetters())


def test_what_a_callback_publishes_comes_after_the_event_at_hand_for_everyone():
    events, first, second = stream(), [], []

    def answer(event):
        first.append(event)
        if event == "ping":
            events.publish("pong")
            events.publish("over")

    events.subscribe(str, answer)
    events.subscribe(str, second.append)
    events.publish("ping")
    assert first == second == ["ping", "pong", "over"]


def test_callbacks_that_feed_each_other_come_to_an_end(caplog):
    events, got = stream(), []
    events.subscribe(str, lambda event: (got.append(event), events.publish(len(event))))
    events.subscribe(int, lambda event: events.publish("x" * event))
    events.publish("x")
    assert len(got) == NESTED_EVENTS // 2 + 1
    assert events.dropped == 1
    assert "publish in a circle" in caplog.text
    # The next publication starts from zero.
    events.publish("y")
    assert events.dropped == 2


def test_a_callback_that_raises_is_unsubscribed_and_the_others_are_told(caplog):
    events, got = stream(), []
    broken = events.subscribe(str, lambda _event: 1 // 0)
    with events.subscribe(str, got.append):
        events.publish("a")
        events.publish("b")
    events.publish("c")
    assert got == ["a", "b"]
    assert not broken.is_open
    assert caplog.text.count("ZeroDivisionError: ") == 1


async def test_a_callback_may_close_other_subscriptions_before_their_turn():
    got, notes = [], []
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(recorder("a", notes), "a")
        system.events.subscribe(str, lambda _event: [later.close() for later in others])
        others = [system.events.subscribe(str, got.append), system.events.subscribe(str, ref)]
        system.events.publish("a")
        assert got == []
        others[0].close()
        await ref.ask(Say(1), timeout=1)
    assert notes == [("a", "start1"), ("a", "stop")]


def test_a_coroutine_function_is_refused():
    async def nobody_awaits(_event):
        raise AssertionError

    with pytest.raises(TypeError, match="plain function"):
        stream().subscribe(str, nobody_awaits)


async def test_an_actor_is_told_until_it_is_gone():
    notes = []
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(recorder("a", notes), "a")
        subscription = system.events.subscribe(str, ref)
        system.events.publish("one")
        await ref.ask(Say(1), timeout=1)
        ref.stop()
        await ref.wait_terminated()
        assert not subscription.is_open
        system.events.publish("two")
        assert system.dead_letters.count == 0
        assert not system.events.subscribe(str, ref).is_open
        assert system.events._by_type == {}
    assert ("a", "got one") in notes
    assert ("a", "got two") not in notes


async def test_a_closed_subscription_leaves_nothing_on_its_actor():
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(recorder("a", []), "a")
        for _ in range(100):
            system.events.subscribe(str, ref).close()
        assert ref._cell.watches._afterwards == {}


async def busy_actor(system, name, **options):
    ref = await system.actor_of(recorder(name, [], capacity=1, **options), name)
    entered, leave = trio.Event(), trio.Event()
    ref.tell(Block(entered, leave))
    await entered.wait()
    ref.tell("fills the mailbox")
    return ref, leave


@pytest.mark.parametrize("overflow", ["fail", "drop_new"])
async def test_an_event_for_a_full_mailbox_is_a_dead_letter(overflow):
    async with ActorSystem.create("t") as system:
        ref, leave = await busy_actor(system, "a", overflow=overflow)
        system.events.subscribe(str, ref)
        system.events.publish("lost")
        (letter,) = system.dead_letters.recent
        assert (letter.path, letter.message) == ("/a", "lost")
        assert "mailbox is full" in letter.reason
        leave.set()


async def test_dead_letters_are_published_but_not_to_their_addressee():
    got = []
    async with ActorSystem.create("t") as system:
        system.events.subscribe(DeadLetter, got.append)
        gone = await system.actor_of(recorder("gone", []), "gone")
        gone.stop()
        await gone.wait_terminated()
        gone.tell("late")
        # Two full actors that hear of each other's losses must not keep the news going round.
        a, leave_a = await busy_actor(system, "a", overflow="drop_new")
        b, leave_b = await busy_actor(system, "b", overflow="drop_new")
        system.events.subscribe(DeadLetter, a)
        system.events.subscribe(DeadLetter, b)
        before = system.dead_letters.count
        a.tell("too much")
        assert system.dead_letters.count == before + 2
        leave_a.set()
        leave_b.set()
    assert [letter.message for letter in got] == ["late", "too much"]
    assert got[0] == DeadLetter("/gone", "late", "the actor is stopped")


async def test_a_stopping_subscriber_of_dead_letters_does_not_drain_its_mailbox_for_ever():
    async with ActorSystem.create("t") as system:
        ref, leave = await busy_actor(system, "a")
        system.events.subscribe(DeadLetter, ref)
        ref.stop()
        leave.set()
        await ref.wait_terminated()
        assert [letter.message for letter in system.dead_letters.recent] == ["fills the mailbox"]
