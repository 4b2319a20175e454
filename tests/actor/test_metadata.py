"""What travels beside a message reaches its handler, goes on from there, and goes nowhere else."""

import trio
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.actor import (
    Actor,
    ActorSystem,
    Props,
    Request,
    StreamRequest,
    current_metadata,
    message_metadata,
    one_for_one,
)

HOW = st.sampled_from(["tell", "send", "ask", "ask_stream"])


@frozen
class Note(Request, StreamRequest):
    number: int


class Relay(Actor):
    """Notes what it sees beside each message, and passes the message on."""

    def __init__(self, seen, after):
        self.seen, self.after = seen, after

    async def handle(self, message, ctx):
        await trio.lowlevel.checkpoint()
        self.seen.append((ctx.path, message.number, dict(current_metadata())))
        if self.after is not None:
            self.after.tell(message)


async def deliver(how, ref, message):
    if how == "tell":
        ref.tell(message)
    elif how == "send":
        await ref.send(message)
    elif how == "ask":
        await ref.ask(message, timeout=5)
    else:
        async with ref.ask_stream(message) as items:
            assert [item async for item in items] == []


@given(messages=st.lists(st.tuples(HOW, st.none() | st.integers(0, 3)), max_size=12), _seed=st.random_module())
async def test_metadata_goes_with_its_message_and_on_with_what_follows_from_it(messages, _seed):
    seen = []
    async with ActorSystem.create("t") as system:
        last = await system.actor_of(Props(factory=lambda: Relay(seen, None)), "last")
        first = await system.actor_of(Props(factory=lambda: Relay(seen, last)), "first")
        for number, (how, trace) in enumerate(messages):
            if trace is None:
                await deliver(how, first, Note(number))
            else:
                with message_metadata(trace=trace):
                    await deliver(how, first, Note(number))
        await trio.testing.wait_all_tasks_blocked()
    expected = {n: {} if trace is None else {"trace": trace} for n, (_, trace) in enumerate(messages)}
    for path in ("/first", "/last"):
        assert [(n, data) for where, n, data in seen if where == path] == list(expected.items())


async def test_blocks_add_to_those_around_them_and_end_with_themselves():
    assert current_metadata() == {}
    with message_metadata(a=1, b=1), message_metadata(b=2) as inner:
        assert inner == current_metadata() == {"a": 1, "b": 2}
    assert current_metadata() == {}


async def test_tasks_of_a_handler_carry_it_on_and_a_child_does_not_keep_it():
    seen = []

    class Parent(Actor):
        async def handle(self, message, ctx):
            child = await ctx.spawn(Props(factory=lambda: Relay(seen, None)), "child")
            ctx.spawn_task(self.work, child)
            return child

        async def work(self, child):
            child.tell(Note(1))

    async with ActorSystem.create("t") as system:
        parent = await system.actor_of(Props(factory=Parent), "parent")
        with message_metadata(trace=7):
            child = await parent.ask(Note(0), timeout=5)
        await trio.testing.wait_all_tasks_blocked()
        child.tell(Note(2))
    assert seen == [("/parent/child", 1, {"trace": 7}), ("/parent/child", 2, {})]


async def test_what_does_not_follow_from_the_message_does_not_carry_its_metadata():
    seen = []

    class Crashing(Actor):
        async def pre_start(self, ctx):
            seen.append(("start", dict(current_metadata())))

        async def handle(self, message, ctx):
            if isinstance(message, Exception):
                raise message
            ctx.watch(message)

        async def on_terminated(self, terminated, ctx):
            seen.append(("notice", dict(current_metadata())))

        async def post_stop(self, ctx):
            seen.append(("stop", dict(current_metadata())))

    async with ActorSystem.create("t", supervisor_strategy=one_for_one()) as system:
        other = await system.actor_of(Props(factory=lambda: Relay([], None)), "other")
        ref = await system.actor_of(Props(factory=Crashing), "a")
        with message_metadata(trace=3):
            ref.tell(ValueError())
            ref.tell(other)
        await trio.testing.wait_all_tasks_blocked()
        other.stop()
        await trio.testing.wait_all_tasks_blocked()
    assert seen == [("start", {}), ("start", {}), ("notice", {}), ("stop", {})]
