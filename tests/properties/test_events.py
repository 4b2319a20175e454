"""The event stream: who is told what, in which order, and that nobody can hurt the publisher."""

from collections import Counter

import pytest
import trio
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.actor import (
    Actor,
    ActorEvent,
    ActorRestarted,
    ActorStarted,
    ActorSystem,
    ActorTerminated,
    DeadLetter,
    MailboxFull,
    OverflowStrategy,
    Props,
    one_for_one,
)

from .kit import run, settle


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
    st.tuples(st.sampled_from(["close", "break"]), st.integers(0, 9)),
    st.tuples(st.just("publish"), st.sampled_from([Base, Left, Right, Both, lambda: ActorStarted("/a", 1)])),
    st.tuples(st.just("publish two"), st.sampled_from([Base, Left, Right, Both])),
)


class Listener:
    """A callback; a broken one raises, a nested event is published while another is being told."""

    def __init__(self, kind, events):
        self.kind, self.events, self.got, self.breaks = kind, events, [], False

    def __call__(self, event):
        self.got.append(event)
        nested = getattr(event, "nested", None)
        if nested is not None:
            event.nested = None
            self.events.publish(nested)
        if self.breaks:
            raise ValueError


@given(st.lists(OPERATIONS, max_size=40), st.random_module())
def test_every_open_subscription_gets_the_events_of_its_class_in_order(operations, _seed):
    async def scenario():
        async with ActorSystem.create("t") as system:
            events, subscriptions, expected = system.events, [], []

            def publish(event):
                told = False
                for i, (listener, subscription) in enumerate(subscriptions):
                    if isinstance(event, listener.kind) and subscription.is_open:
                        expected[i].append(event)
                        told = True
                return told

            for what, argument in operations:
                if what == "subscribe":
                    listener = Listener(argument, events)
                    expected.append([])
                    subscriptions.append((listener, events.subscribe(argument, listener)))
                elif what == "close" and subscriptions:
                    subscription = subscriptions[argument % len(subscriptions)][1]
                    subscription.close()
                    subscription.close()
                elif what == "break" and subscriptions:
                    subscriptions[argument % len(subscriptions)][0].breaks = True
                elif what.startswith("publish"):
                    event = argument()
                    listening = publish(event)
                    if what == "publish two" and listening:
                        event.nested = argument()
                        # Whoever breaks on the first is not told of the second.
                        for i, (listener, subscription) in enumerate(subscriptions):
                            wants = isinstance(event, listener.kind) and subscription.is_open
                            if wants and not listener.breaks:
                                expected[i].append(event.nested)
                    events.publish(event)
                assert [listener.got for listener, _ in subscriptions] == expected
            for _, subscription in subscriptions:
                subscription.close()
                assert not subscription.is_open
            assert events._by_type == {}

    run(scenario)


@frozen
class Numbered:
    publisher: int
    number: int


@pytest.mark.parametrize("overflow", OverflowStrategy)
@settings(max_examples=100)
@given(
    plan=st.lists(st.integers(0, 2), max_size=40),
    capacity=st.integers(1, 8),
    stops_after=st.integers(0, 40),
    _seed=st.random_module(),
)
def test_each_event_is_handled_or_a_dead_letter_and_keeps_its_order(overflow, plan, capacity, stops_after, _seed):
    got, lost, published = [], [], []

    class Sink(Actor):
        async def handle(self, message, ctx):
            await trio.lowlevel.checkpoint()
            got.append(message)

    async def scenario():
        async with ActorSystem.create("t") as system:
            ref = await system.actor_of(Props(factory=Sink, capacity=capacity, overflow=overflow), "sink")
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
            assert not subscription.is_open

    run(scenario)
    assert Counter(got + lost) == Counter(published)
    for me in range(3):
        numbers = [event.number for event in got if event.publisher == me]
        assert numbers == sorted(numbers)


def in_short(message):
    """Return a message, or the path and the message of a dead letter: why it was lost does not matter here."""
    return (message.path, in_short(message.message)) if isinstance(message, DeadLetter) else message


@given(
    told=st.lists(st.sampled_from(["sink", "gone"]), max_size=20),
    capacity=st.integers(1, 4),
    overflow=st.sampled_from(OverflowStrategy),
    stops=st.booleans(),
    _seed=st.random_module(),
)
def test_an_actor_hears_of_the_losses_of_others_and_not_of_its_own(told, capacity, overflow, stops, _seed):
    """News of its own full mailbox would take the place of mail there; nor does it hear of what its end leaves over."""
    leave, got, queue, lost = trio.Event(), [], [], []

    class Sink(Actor):
        async def handle(self, message, ctx):
            got.append(in_short(message))
            await leave.wait()

    def goes_to_the_sink(message):
        """Return whether it is told that there is no room."""
        if len(queue) == capacity and overflow is OverflowStrategy.FAIL:
            return True
        if len(queue) == capacity:
            lost.append(("/sink", queue.pop(0) if overflow is OverflowStrategy.DROP_HEAD else message))
        if len(queue) < capacity:
            queue.append(message)
        return False

    async def scenario():
        async with ActorSystem.create("t") as system:
            gone = await system.actor_of(Props(factory=Mortal), "gone")
            gone.stop()
            await gone.wait_terminated()
            sink = await system.actor_of(Props(factory=Sink, capacity=capacity, overflow=overflow), "sink")
            system.events.subscribe(DeadLetter, sink)
            sink.tell("begin")
            await settle()
            for number, whom in enumerate(told):
                if whom == "sink":
                    is_refused = False
                    try:
                        sink.tell(number)
                    except MailboxFull:
                        is_refused = True
                    assert goes_to_the_sink(number) is is_refused
                else:
                    gone.tell(number)
                    lost.append(("/gone", number))
                    if goes_to_the_sink(("/gone", number)):
                        lost.append(("/sink", ("/gone", number)))
                assert [in_short(letter) for letter in system.dead_letters.recent] == lost
            if stops:
                sink.stop()
            leave.set()
            await settle()
            if stops:
                lost.extend(("/sink", message) for message in queue)
                queue.clear()
            assert got == ["begin", *queue]
            assert [in_short(letter) for letter in system.dead_letters.recent] == lost
            assert system.dead_letters.count == len(lost)

    run(scenario)


class Mortal(Actor):
    async def handle(self, message, ctx):
        raise message


@given(
    turns=st.lists(st.tuples(st.sampled_from(["crash", "stop", "spawn"]), st.integers(0, 2)), max_size=15),
    _seed=st.random_module(),
)
def test_the_turns_of_a_life_are_told_in_order(turns, _seed):
    """Started once for each life, restarted before every one but the first, terminated once and last."""
    told, expected = [], []

    async def scenario():
        async with ActorSystem.create("t", supervisor_strategy=one_for_one(max_restarts=1000)) as system:
            system.events.subscribe(ActorEvent, lambda event: told.append(event))
            lives = {}
            for what, who in turns:
                path = f"/{who}"
                if what == "spawn" and who not in lives:
                    lives[who] = 1
                    expected.append(ActorStarted(path, 1))
                    await system.actor_of(Props(factory=Mortal), str(who))
                elif what == "stop" and who in lives:
                    del lives[who]
                    expected.append(ActorTerminated(path, f"enough of {who}"))
                    system.lookup(path).stop(f"enough of {who}")
                elif what == "crash" and who in lives:
                    lives[who] += 1
                    failure = ValueError(who)
                    expected.extend([ActorRestarted(path, failure), ActorStarted(path, lives[who])])
                    system.lookup(path).tell(failure)
                await settle()
                assert told == expected
            told.clear()
        # They are stopped the youngest first.
        assert [event.path for event in told] == [*(f"/{who}" for who in reversed(lives)), "/"]
        assert {type(event) for event in told} == {ActorTerminated}

    run(scenario)
