"""Streams of answers: a prefix in order, ended exactly once, bounded, and no producer outlives its reader."""

import trio
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.actor import (
    Actor,
    ActorFailed,
    ActorStopped,
    ActorSystem,
    DeadLetter,
    MailboxFull,
    Props,
    Request,
    StreamRequest,
    one_for_one,
)

from .kit import Channels, all_tasks, run, settle


class Refusal(Exception):
    pass


@frozen
class Count(StreamRequest[int]):
    """Produce so many numbers with these pauses before them (in turn), then end in one of the ways.

    The handler itself takes ``delay`` seconds before it offers the stream.
    """

    upto: int
    pauses: tuple
    end: str
    delay: int = 0


@frozen
class Say(Request[str]):
    value: str


class Source(Actor):
    def __init__(self, sent, ended, failures=None):
        self.sent, self.ended = sent, ended
        self.failures = [] if failures is None else failures

    async def handle(self, message, ctx):
        match message:
            case Count(end="refuse"):
                ctx.fail(Refusal())
            case Count(end="raise in handler"):
                self.failures.append(message)
                raise ValueError
            case Count(end="no stream"):
                pass
            case Count():
                await trio.sleep(message.delay)
                ctx.stream(self.produce, message)
            case "crash":
                self.failures.append(message)
                raise KeyError
            case trio.Event():
                await message.wait()
            case Say(value):
                return value

    async def produce(self, sink, count):
        end = "cancelled"
        try:
            for number in range(count.upto):
                pause = count.pauses[number % len(count.pauses)]
                if pause:
                    await trio.sleep(pause)
                await sink.send(number)
                self.sent.append(number)
            end = "well"
            if count.end == "raise":
                end = "raise"
                self.failures.append(count)
                raise ValueError
        finally:
            self.ended.append((end, trio.current_time()))


def supervised():
    return ActorSystem.create("t", supervisor_strategy=one_for_one(max_restarts=10_000))


ENDS = st.sampled_from(["well", "well", "well", "raise", "raise in handler", "refuse", "no stream"])
PAUSES = st.lists(st.integers(0, 2), min_size=1, max_size=3).map(tuple)


@settings(max_examples=200)
@given(
    count=st.builds(Count, st.integers(0, 8), PAUSES, ENDS, st.sampled_from([0, 0, 2])),
    capacity=st.integers(1, 4),
    reads=st.lists(st.integers(0, 5), max_size=12),
    disturbance=st.none() | st.tuples(st.sampled_from(["stop", "crash", "cancel"]), st.integers(0, 12)),
    _seed=st.random_module(),
)
def test_a_stream_is_a_prefix_in_order_with_one_end(count, capacity, reads, disturbance, _seed):
    """The reader pauses as ``reads`` says before each item and then leaves, or meets the end first."""
    sent, ended, got, outcome, failures = [], [], [], [], []
    what, when = disturbance or ("nothing", 100)
    when += 1 / 4  # apart from everything else that happens

    async def read(ref):
        with trio.CancelScope(deadline=when if what == "cancel" else float("inf")) as scope:
            async with ref.ask_stream(count, capacity=capacity) as items:
                for pause in reads:
                    await trio.sleep(pause + 1 / 2)
                    assert len(sent) <= len(got) + capacity
                    if not any(count.pauses) and not count.delay and count.end in ("well", "raise") and not ended:
                        assert len(sent) == min(count.upto, len(got) + capacity)
                    try:
                        got.append(await anext(items))
                    except Exception as end:
                        outcome.append(end)
                        for _ in range(2):
                            try:
                                await anext(items)
                            except type(end):
                                continue
                            raise AssertionError("an end is for good") from end
                        return
                # Leaving: the producer has no say in it, whatever it does now.
                left_at = trio.current_time()
        if scope.cancelled_caught:
            left_at = trio.current_time()
        await settle()
        assert all(at <= left_at for _, at in ended)

    async def scenario():
        async with supervised() as system:
            ref = await system.actor_of(Props(factory=lambda: Source(sent, ended, failures)), "source")
            before = all_tasks()
            async with trio.open_nursery() as nursery:

                async def disturb():
                    await trio.sleep(when)
                    if what == "stop":
                        ref.stop()
                    elif what == "crash":
                        ref.tell("crash")

                nursery.start_soon(disturb)
                await read(ref)
                await settle()
                assert not (all_tasks() - before - nursery.child_tasks)
                nursery.cancel_scope.cancel(reason="done")
                # A producer's failure is its actor's, and so is a handler's; the end of a reader is not.
                if not ref.is_terminated:
                    assert system.tree().children[0].restarts == len(failures)

    with Channels() as channels:
        run(scenario)
    assert channels.in_use() == []
    assert got == list(range(len(got)))
    assert sent == list(range(len(sent)))
    assert len(ended) == 1 if sent else len(ended) <= 1
    assert len(sent) <= len(got) + capacity
    for end in outcome:
        match end:
            case StopAsyncIteration():
                assert count.end in ("well", "no stream")
                assert len(got) == (count.upto if count.end == "well" else 0)
            case ActorFailed():
                assert isinstance(end.__cause__, ValueError)
                assert len(got) == (count.upto if count.end == "raise" else 0)
                assert count.end in ("raise", "raise in handler")
            case ActorStopped():
                assert what in ("stop", "crash")
                # What was sent before the end still arrives.
                assert got == sent
            case Refusal():
                assert count.end == "refuse"
            case _:
                raise AssertionError from end


@given(
    leaves=st.lists(st.booleans(), min_size=1, max_size=5),
    capacity=st.integers(1, 3),
    stop=st.booleans(),
    _seed=st.random_module(),
)
def test_readers_may_leave_before_their_question_is_handled(leaves, capacity, stop, _seed):
    """Nobody is hurt: those who stay are served, the actor lives on, and no producer is left."""
    sent, ended, results, letters = [], [], {}, []

    async def scenario():
        hold = trio.Event()
        async with supervised() as system, trio.open_nursery() as nursery:
            system.events.subscribe(DeadLetter, lambda letter: letters.append(letter.message))
            props = Props(factory=lambda: Source(sent, ended), capacity=8)
            ref = await system.actor_of(props, "source")
            ref.tell(hold)
            await settle()

            async def reader(i, scope):
                with scope:
                    try:
                        async with ref.ask_stream(Count(4, (0,), "well"), capacity=capacity) as items:
                            results[i] = [item async for item in items]
                    except ActorStopped:
                        results[i] = "stopped"

            scopes = [trio.CancelScope() for _ in leaves]
            for i, scope in enumerate(scopes):
                nursery.start_soon(reader, i, scope)
            await settle()
            for scope, goes in zip(scopes, leaves, strict=True):
                if goes:
                    scope.cancel(reason="test")
            await settle()
            if stop:
                ref.stop()
            hold.set()
            await settle()
            assert ref.is_terminated is stop
            if not stop:
                assert await ref.ask(Say("alive"), timeout=1) == "alive"
                assert system.tree().children[0].restarts == 0
        expected = "stopped" if stop else [0, 1, 2, 3]
        assert results == {i: expected for i, goes in enumerate(leaves) if not goes}
        assert len([end for end, _ in ended if end == "well"]) == (0 if stop else leaves.count(False))

    run(scenario)


@given(capacity=st.integers(1, 3), full=st.booleans())
def test_a_stream_that_finds_no_room_or_nobody_says_so(capacity, full):
    async def scenario():
        async with supervised() as system:
            ref = await system.actor_of(Props(factory=lambda: Source([], []), capacity=capacity), "source")
            hold = trio.Event()
            if full:
                ref.tell(hold)
                await settle()
                for _ in range(capacity):
                    ref.tell(hold)
            else:
                ref.stop()
                await ref.wait_terminated()
            try:
                async with ref.ask_stream(Count(1, (0,), "well")) as items:
                    await anext(items)
            except (MailboxFull, ActorStopped) as error:
                assert isinstance(error, MailboxFull) is full
            else:
                raise AssertionError
            hold.set()

    run(scenario)
