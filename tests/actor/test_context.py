"""Timers, receive timeout, stash, become, streams of answers, hooks: what a context can do."""

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
    Props,
    ReceiveTimeout,
    Request,
    StashFull,
    StreamRequest,
    one_for_one,
    stopping,
)

from .kit import Crash, Say, recorder


class Scripted(Actor):
    """Runs the function it is sent, and writes down everything else."""

    def __init__(self, got):
        self.got = got

    async def handle(self, message, ctx):
        if callable(message):
            return await message(self, ctx)
        if isinstance(message, Say):
            return message.value
        self.got.append((message, trio.current_time()))
        return None


def scripted(got, **options):
    return Props(factory=lambda: Scripted(got), **options)


def messages(got):
    return [message for message, _ in got]


async def test_timers_fire_once_or_regularly_and_stop(autojump_clock):
    got = []

    async def start(_actor, ctx):
        ctx.timers.start_once("once", "once", 5)
        ctx.timers.start_fixed_rate("rate", "tick", 2)
        ctx.timers.start_fixed_delay("delay", "tock", 3)
        assert ctx.timers.is_active("once")

    async def stop(_actor, ctx):
        assert not ctx.timers.is_active("once")
        ctx.timers.cancel("rate")
        ctx.timers.cancel("delay")
        ctx.timers.cancel("nobody")

    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(scripted(got), "a")
        ref.tell(start)
        await trio.sleep(6.5)
        ref.tell(stop)
        await trio.sleep(20)
    assert sorted((m, round(at)) for m, at in got) == [
        ("once", 5), ("tick", 2), ("tick", 4), ("tick", 6), ("tock", 3), ("tock", 6),
    ]  # fmt: skip


async def test_a_slow_actor_gets_one_beat_and_not_a_pile_of_them(autojump_clock):
    got = []

    async def start(_actor, ctx):
        ctx.timers.start_fixed_rate("rate", "tick", 1)
        await trio.sleep(10.5)

    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(scripted(got), "a")
        await ref.ask(Call(start), timeout=100)
        await trio.sleep(0.1)
        assert messages(got) == ["tick"]


@frozen
class Call(Request):
    fn: object

    async def __call__(self, actor, ctx):
        return await self.fn(actor, ctx)


TIMER_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), st.sampled_from("xy"), st.integers(1, 5)),
        st.tuples(st.just("cancel"), st.sampled_from("xy")),
        st.tuples(st.just("crash")),
        st.tuples(st.just("sleep"), st.integers(1, 4)),
    ),
    max_size=20,
)


@given(steps=TIMER_STEPS, _seed=st.random_module())
def test_no_stale_timer_is_ever_delivered(steps, _seed):
    """Against a model: key → (its latest message, when it is due); a restart forgets all."""
    got, expected, pending, number, now = [], [], {}, 0, 0

    async def scenario():
        nonlocal number, now
        async with ActorSystem.create("t", supervisor_strategy=one_for_one(max_restarts=100)) as system:
            ref = await system.actor_of(scripted(got), "a")
            for what, *arguments in [*steps, ("sleep", 10)]:
                match what, arguments:
                    case "start", [key, delay]:
                        number += 1

                        async def start(_actor, ctx, key=key, message=number, delay=delay):
                            ctx.timers.start_once(key, message, delay)

                        pending[key] = (number, now + delay)
                        await ref.ask(Call(start), timeout=1)
                    case "cancel", [key]:

                        async def cancel(_actor, ctx, key=key):
                            ctx.timers.cancel(key)

                        pending.pop(key, None)
                        await ref.ask(Call(cancel), timeout=1)
                    case "crash", _:
                        pending.clear()
                        with pytest.raises(ActorFailed):
                            await ref.ask(Call(crash), timeout=1)
                    case "sleep", [seconds]:
                        await trio.sleep(seconds)
                        await trio.testing.wait_all_tasks_blocked()
                        now += seconds
                        due = sorted((at, message) for message, at in pending.values() if at <= now)
                        expected.extend(message for _, message in due)
                        for key in [key for key, (_, at) in pending.items() if at <= now]:
                            del pending[key]
            # Timers that are due at the same instant may come in either order.
            assert sorted(messages(got)) == sorted(expected)

    async def crash(_actor, _ctx):
        raise ValueError

    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_the_receive_timeout_counts_idleness_only(autojump_clock):
    got = []

    async def start(_actor, ctx):
        ctx.set_receive_timeout(10)

    async def stop(_actor, ctx):
        ctx.set_receive_timeout(None)

    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(scripted(got), "a")
        ref.tell(start)
        for _ in range(3):
            await trio.sleep(7)
            ref.tell("busy")
        await trio.sleep(25)
        ref.tell(stop)
        await trio.sleep(100)
    idle = [round(at) for message, at in got if message == ReceiveTimeout()]
    assert idle == [31, 41]


async def test_stashed_messages_come_back_before_new_mail_with_their_questions():
    got = []

    class Opening(Actor):
        """Puts everything aside until it is opened."""

        async def handle(self, message, ctx):
            if message == "open":
                ctx.unstash()
                ctx.become(self.opened)
            else:
                ctx.stash()

        def opened(self, message, ctx):
            got.append(message)
            return message.value if isinstance(message, Say) else None

    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(Props(factory=Opening), "a")
        answers = []

        async def ask():
            answers.append(await ref.ask(Say("asked early"), timeout=10))

        async with trio.open_nursery() as nursery:
            ref.tell("first")
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            ref.tell("open")
            ref.tell("last")
        assert answers == ["asked early"]
        await ref.ask(Say("end"), timeout=1)
    assert got == ["first", Say("asked early"), "last", Say("end")]


async def test_a_full_stash_is_a_failure_and_a_restart_loses_the_stash():
    class Hoarder(Actor):
        async def handle(self, message, ctx):
            ctx.stash()

    async with ActorSystem.create("t", supervisor_strategy=one_for_one()) as system:
        ref = await system.actor_of(Props(factory=Hoarder, stash_capacity=2), "a")
        ref.tell(1)
        with pytest.raises(ActorFailed) as caught:
            await ref.ask(Say("too much"), timeout=1) if ref.tell(2) is None else None
        assert isinstance(caught.value.__cause__, StashFull)
        await trio.testing.wait_all_tasks_blocked()
        reasons = [(letter.message, letter.reason) for letter in system.dead_letters.recent]
        assert reasons == [(1, "it was stashed when its incarnation ended"), (2, reasons[1][1])]


async def test_unbecome_goes_back_and_a_restart_forgets_behaviours():
    class Moody(Actor):
        def handle(self, message, ctx):
            match message:
                case "become":
                    ctx.become(self.other)
                case Crash(error):
                    raise error
            return "plain"

        def other(self, message, ctx):
            match message:
                case "back":
                    ctx.unbecome()
                case Crash(error):
                    raise error
            return "other"

    async with ActorSystem.create("t", supervisor_strategy=one_for_one()) as system:
        ref = await system.actor_of(Props(factory=Moody), "a")

        async def mood():
            return await ref.ask(Say(None), timeout=1)

        assert await mood() == "plain"
        ref.tell("become")
        assert await mood() == "other"
        ref.tell("back")
        assert await mood() == "plain"
        ref.tell("become")
        ref.tell(Crash(ValueError()))
        assert await mood() == "plain"


@frozen
class Count(StreamRequest[int]):
    upto: int
    fail: bool = False


class Counter(Actor):
    def __init__(self, sent, ended):
        self.sent, self.ended = sent, ended

    async def handle(self, message, ctx):
        if isinstance(message, Count):
            ctx.stream(self.count, message)
        elif isinstance(message, Crash):
            raise message.error

    async def count(self, sink, message):
        try:
            for number in range(message.upto):
                await sink.send(number)
                self.sent.append(number)
            if message.fail:
                raise ValueError("no more")
        finally:
            self.ended.append(message)


def counter(sent, ended):
    return Props(factory=lambda: Counter(sent, ended))


async def test_a_stream_arrives_in_order_bounded_by_its_capacity():
    sent, ended = [], []
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(counter(sent, ended), "a")
        async with ref.ask_stream(Count(10), capacity=3) as items:
            await trio.testing.wait_all_tasks_blocked()
            assert sent == [0, 1, 2]
            assert [item async for item in items] == list(range(10))
        assert ended == [Count(10)]


async def test_a_reader_that_leaves_ends_the_producer():
    sent, ended = [], []
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(counter(sent, ended), "a")
        async with ref.ask_stream(Count(10), capacity=1) as items:
            assert await anext(items) == 0
        await trio.testing.wait_all_tasks_blocked()
        assert ended == [Count(10)]
        assert len(sent) < 4


async def test_streams_end_with_the_reason_for_their_end():
    async with ActorSystem.create("t", supervisor_strategy=stopping()) as system:
        ref = await system.actor_of(counter([], []), "a")
        async with ref.ask_stream(Count(0)) as items:
            assert [item async for item in items] == []
        async with ref.ask_stream(Count(5)) as items:
            assert await anext(items) == 0
            ref.stop()
            await ref.wait_terminated()
            with pytest.raises(ActorStopped):
                [item async for item in items]
        async with ref.ask_stream(Count(1)) as items:
            with pytest.raises(ActorStopped):
                await anext(items)
        failing = await system.actor_of(counter([], []), "b")
        async with failing.ask_stream(Count(1, fail=True)) as items:
            assert await anext(items) == 0
            with pytest.raises(ActorFailed) as caught:
                await anext(items)
            assert isinstance(caught.value.__cause__, ValueError)
        await failing.wait_terminated()


async def test_a_handler_that_offers_no_stream_gives_an_empty_one():
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(recorder("a", []), "a")
        async with ref.ask_stream(Count(3)) as items:
            assert [item async for item in items] == []


async def test_hooks_run_in_order():
    events = []

    class Hooked(Actor):
        async def pre_start(self, ctx):
            events.append("pre_start")

        async def on_failure(self, failure, ctx):
            events.append(f"on_failure {failure}")

        async def pre_restart(self, failure, ctx):
            events.append("pre_restart")

        async def post_restart(self, failure, ctx):
            events.append(f"post_restart {failure}")

        async def post_stop(self, ctx):
            events.append("post_stop")

        def handle(self, message, ctx):
            raise ValueError("boom")

    async with ActorSystem.create("t", supervisor_strategy=one_for_one()) as system:
        ref = await system.actor_of(Props(factory=Hooked), "a")
        ref.tell("x")
        await trio.testing.wait_all_tasks_blocked()
    assert events == [
        "pre_start", "on_failure boom", "pre_restart", "pre_start", "post_restart boom", "post_stop",
    ]  # fmt: skip


async def test_a_task_of_an_idle_actor_may_unstash_and_set_the_receive_timeout(autojump_clock):
    got = []

    class Lazy(Actor):
        async def pre_start(self, ctx):
            ctx.spawn_task(self.later, ctx)

        async def later(self, ctx):
            await trio.sleep(1)
            ctx.become(self.note)
            ctx.unstash()
            await trio.sleep(1)
            ctx.set_receive_timeout(3)

        async def handle(self, message, ctx):
            ctx.stash()

        async def note(self, message, ctx):
            got.append((message, trio.current_time()))
            if message == ReceiveTimeout():
                ctx.set_receive_timeout(None)

    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(Props(factory=Lazy), "a")
        ref.tell(1)
        ref.tell(2)
        await trio.sleep(10)
    assert got == [(1, 1), (2, 1), (ReceiveTimeout(), 5)]
