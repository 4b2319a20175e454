"""A probe says what came, and what came instead."""

import pytest
import trio
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.actor import (
    Actor,
    ActorRestarted,
    ActorStarted,
    ActorStopped,
    ActorSystem,
    ActorTerminated,
    AskTimeout,
    DeadLetter,
    Props,
    Request,
    stopping,
)
from atomr_trio.testing import EventProbe, TestProbe, no_dead_letters


@frozen
class Number:
    value: int


@frozen
class Question(Request[int]):
    text: str


class Failing(Actor):
    async def handle(self, message, ctx):
        raise ValueError(message)


async def test_messages_come_in_order_by_class_by_function_and_by_value(actor_system, autojump_clock):
    probe = await TestProbe.create(actor_system)
    for message in (Number(1), "two", Number(3), Number(4)):
        probe.ref.tell(message)
    assert await probe.expect(Number) == Number(1)
    assert await probe.expect("two") == "two"
    assert await probe.expect(lambda message: message.value == 3) == Number(3)
    assert await probe.fish(Number(4)) == Number(4)
    await probe.expect_none()
    assert probe.received == (Number(1), "two", Number(3), Number(4))


async def test_another_message_is_named(actor_system, autojump_clock):
    probe = await TestProbe.create(actor_system, "me")
    probe.ref.tell(Number(1))
    with pytest.raises(AssertionError, match=r"me: wanted str, got Number\(value=1\) \(1 in all: Number\(value=1\)\)"):
        await probe.expect(str)


async def test_silence_is_told_with_its_length(actor_system, autojump_clock):
    probe = await TestProbe.create(actor_system)
    with pytest.raises(AssertionError, match=r"probe: no Number came within 2s \(nothing has come at all\)"):
        await probe.expect(Number, within=2)
    assert trio.current_time() == pytest.approx(2)


async def test_expect_waits_for_what_comes_later(actor_system, autojump_clock):
    probe = await TestProbe.create(actor_system)

    async def later():
        await trio.sleep(2.5)
        probe.ref.tell(Number(1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(later)
        await probe.expect(Number)


async def test_what_comes_late_breaks_the_silence(actor_system, autojump_clock):
    probe = await TestProbe.create(actor_system)
    probe.ref.tell("noise")
    with pytest.raises(AssertionError, match="wanted nothing for 5s, got 'noise'"):
        await probe.expect_none(5)
    await probe.expect("noise")
    await probe.expect_none(5)


async def test_fish_passes_over_the_others_and_says_so(actor_system, autojump_clock):
    probe = await TestProbe.create(actor_system)
    for number in range(3):
        probe.ref.tell(Number(number))
    assert await probe.fish(lambda message: message.value > 0) == Number(1)
    with pytest.raises(AssertionError, match=r"no str came within 3s \(3 in all"):
        await probe.fish(str)
    await probe.expect_none(0)


@given(sent=st.lists(st.integers(0, 9)), _seed=st.random_module())
def test_nothing_is_lost_and_nothing_comes_twice(sent, _seed):
    async def main():
        async with ActorSystem.create("it") as system:
            probe = await TestProbe.create(system)
            for number in sent:
                probe.ref.tell(number)
            assert [await probe.expect(int) for _ in sent] == sent
            await probe.expect_none()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_question_is_answered_once(actor_system, autojump_clock):
    probe = await TestProbe.create(actor_system)
    answers = []

    async def ask(text):
        try:
            answers.append(await probe.ref.ask(Question(text), timeout=1))
        except ValueError as error:
            answers.append(error.args)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, "good")
        await probe.expect(Question("good"))
        probe.reply(42)
        with pytest.raises(AssertionError, match="nothing to answer"):
            probe.reply(43)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask, "bad")
        await probe.expect(Question("bad"))
        probe.fail(ValueError("no"))
    assert answers == [42, ("no",)]


async def test_what_was_told_has_no_answer(actor_system, autojump_clock):
    probe = await TestProbe.create(actor_system)
    probe.ref.tell("hello")
    await probe.expect("hello")
    with pytest.raises(AssertionError, match="nothing to answer"):
        probe.reply(1)


async def test_a_reply_that_is_late_is_noticed(actor_system, autojump_clock):
    probe = await TestProbe.create(actor_system)
    with pytest.raises(AskTimeout):
        await probe.ref.ask(Question("hurry"), timeout=1)
    await probe.expect(Question)
    with pytest.raises(AssertionError, match="does not wait any more"):
        probe.reply(1)


async def test_an_end_is_seen_before_and_after_it_happened(actor_system, autojump_clock):
    probe = await TestProbe.create(actor_system)
    other = await TestProbe.create(actor_system, "other")
    with pytest.raises(AssertionError, match="probe watching /other: no Terminated came within 3s"):
        await probe.expect_terminated(other.ref)
    ref = other.ref
    ref.stop("enough")
    assert (await probe.expect_terminated(ref)).reason == "enough"
    assert (await probe.expect_terminated(ref)).ref == ref
    assert probe.received == ()


async def test_a_probe_can_be_somebodys_child(actor_system, autojump_clock):
    probe = TestProbe("child")
    with pytest.raises(RuntimeError, match="child has not started"):
        _ = probe.ref

    class Parent(Actor):
        async def pre_start(self, ctx):
            await ctx.spawn(probe.props, "child")

    await actor_system.actor_of(Props(factory=Parent), "parent")
    assert probe.ref.path == "/parent/child"


async def test_events_are_found_in_their_order(autojump_clock):
    async with ActorSystem.create("it", supervisor_strategy=stopping()) as system:
        with EventProbe(system) as events:
            ref = await system.actor_of(Props(factory=Failing), "a")
            assert await events.expect(ActorStarted) == ActorStarted("/a", 1)
            ref.tell("boom")
            ended = await events.expect(ActorTerminated)
            assert isinstance(ended.failure, ValueError)
            ref.tell("too late")
            letter = await events.expect_dead_letter("too late")
            assert letter.path == "/a"
            with pytest.raises(AssertionError, match=r"events of it: no ActorRestarted came within 1s \(3 in all"):
                await events.expect(ActorRestarted, within=1)
            assert len(events.recorded()) == 3
            assert events.recorded(DeadLetter) == (letter,)
        ref.tell("unheard")
        assert len(events.recorded()) == 3


async def test_a_dead_letter_is_wanted_by_its_message(actor_system, autojump_clock):
    probe = await TestProbe.create(actor_system)
    ref = probe.ref
    ref.stop()
    await ref.wait_terminated()
    with EventProbe(actor_system) as events:
        for number in range(3):
            ref.tell(Number(number))
        assert (await events.expect_dead_letter(lambda message: message.value == 1)).message == Number(1)
        assert (await events.expect_dead_letter(Number)).message == Number(2)
        with pytest.raises(AssertionError, match="no dead letter with str came within 3s"):
            await events.expect_dead_letter(str)


async def test_lost_messages_are_counted_and_named(actor_system, autojump_clock):
    probe = await TestProbe.create(actor_system)
    with no_dead_letters(actor_system):
        probe.ref.tell("fine")
        await probe.expect("fine")
    ref = probe.ref
    ref.stop()
    await ref.wait_terminated()
    with pytest.raises(AssertionError, match="1 messages were lost: 'gone' for /probe"), no_dead_letters(actor_system):
        ref.tell("gone")
    # What the block itself raises comes first.
    with pytest.raises(ActorStopped), no_dead_letters(actor_system):
        await ref.ask(Question("gone too"), timeout=1)
