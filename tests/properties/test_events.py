"""The event stream: who is told what, in which order, and that nobody can hurt the publisher."""

from collections import Counter

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


KINDS = [object, Base, Left, Right, Both]
OPERATIONS = st.one_of(
    st.tuples(st.just("subscribe"), st.sampled_from(KINDS)),
    st.tuples(st.sampled_from(["close", "break"]), st.integers(0, 9)),
    st.tuples(st.just("publish"), st.sampled_from([Base, Left, Right, Both])),
    st.tuples(st.just("publish two"), st.sampled_from([Base, Left, Right, Both])),
)


class Listener:
    """A callback; a broken one raises, a nested event is published while another is being told."""

    def __init__(self, kind, events):
        self.kind, self.events, self.got, self.breaks = kind, events, [], False

    def __call__(self, event):
        self.got.append(event)
        nested, event.nested = getattr(event, "nested", None), None
        if nested is not None:
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

    run(scenario)


@frozen
class Numbered:
    publisher: int
    number: int


@settings(max_examples=100)
@given(
    plan=st.lists(st.integers(0, 2), max_size=40),
    capacity=st.integers(1, 8),
    overflow=st.sampled_from(OverflowStrategy),
    stops_after=st.integers(0, 40),
    _seed=st.random_module(),
)
def test_each_event_is_handled_or_a_dead_letter_and_keeps_its_order(plan, capacity, overflow, stops_after, _seed):
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
