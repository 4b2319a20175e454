"""The event stream: who is told what, in which order, and that nobody can hurt the publisher."""

from collections import Counter

import pytest
import trio
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.actor import Actor, ActorEvent, ActorStarted, ActorSystem, DeadLetter, EventStream, Props
from atomr_trio.actor._events import NESTED_EVENTS
from atomr_trio.actor._mailbox import DeadLetters

from .kit import Block, Say, recorder


class Base:
    pass


class Left(Base):
    pass


class Right(Base):
    pass


class Both(Left, Right):
    pass


KINDS = [object, Base, Left, Right, Both, ActorEvent]

OPERATIONS = st.one_of(
    st.tuples(st.just("subscribe"), st.sampled_from(KINDS)),
    st.tuples(st.just("close"), st.integers(0, 9)),
    st.tuples(st.just("publish"), st.sampled_from([Base, Left, Right, Both, lambda: ActorStarted("/a", 1)])),
)


def stream():
    return EventStream(DeadLetters())


@given(st.lists(OPERATIONS, max_size=40))
def test_every_open_subscription_gets_the_events_of_its_class_in_order(operations):
    events, subscriptions, got, expected = stream(), [], [], []
    for what, argument in operations:
        if what == "subscribe":
            got.append([])
            expected.append([])
            subscriptions.append((argument, events.subscribe(argument, got[-1].append)))
        elif what == "close" and subscriptions:
            subscriptions[argument % len(subscriptions)][1].close()
        elif what == "publish":
            event = argument()
            for i, (kind, subscription) in enumerate(subscriptions):
                if subscription.is_open and isinstance(event, kind):
                    expected[i].append(event)
            events.publish(event)
    assert got == expected
    for _, subscription in subscriptions:
        subscription.close()
    assert events._by_type == {}


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


@frozen
class Numbered:
    publisher: int
    number: int


@given(
    plan=st.lists(st.integers(0, 2), max_size=40),
    capacity=st.integers(1, 8),
    stops_after=st.integers(0, 40),
    _seed=st.random_module(),
)
async def test_each_event_is_handled_or_a_dead_letter_and_keeps_its_order(plan, capacity, stops_after, _seed):
    got, lost, published = [], [], []

    class Sink(Actor):
        async def handle(self, message, ctx):
            await trio.lowlevel.checkpoint()
            got.append(message)

    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(Props(factory=Sink, capacity=capacity), "sink")
        subscription = system.events.subscribe(Numbered, ref)
        system.events.subscribe(DeadLetter, lambda letter: lost.append(letter.message))

        async def publisher(me):
            for number, who in enumerate(plan):
                if who == me:
                    if subscription.is_open:
                        published.append(Numbered(me, number))
                    system.events.publish(Numbered(me, number))
                    await trio.lowlevel.checkpoint()

        async def stopper():
            for _ in range(stops_after):
                await trio.lowlevel.checkpoint()
            ref.stop()

        async with trio.open_nursery() as nursery:
            for me in range(3):
                nursery.start_soon(publisher, me)
            nursery.start_soon(stopper)
        await ref.wait_terminated()

    assert Counter(got + lost) == Counter(published)
    for me in range(3):
        numbers = [event.number for event in got if event.publisher == me]
        assert numbers == sorted(numbers)
