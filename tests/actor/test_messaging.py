"""tell, send, ask; what happens when the mailbox is full, the actor is slow, or gone."""

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
    AskTimeout,
    MailboxFull,
    NameTaken,
    Props,
    Request,
    stopping,
)

from .kit import Block, Crash, Say, recorder


async def test_an_ask_is_answered_by_what_the_handler_returns():
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(recorder("a", []), "a")
        assert await ref.ask(Say(42), timeout=1) == 42
        assert ref.path == "/a"


async def test_an_ask_times_out_and_its_late_answer_vanishes(autojump_clock):
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(recorder("a", []), "a")
        entered, leave = trio.Event(), trio.Event()
        ref.tell(Block(entered, leave))
        await entered.wait()
        with pytest.raises(AskTimeout, match="did not answer within 3s"):
            await ref.ask(Say(1), timeout=3)
        assert trio.current_time() == pytest.approx(3, abs=0.01)
        leave.set()
        assert await ref.ask(Say(2), timeout=1) == 2
        # The abandoned question was not handed to the actor.
        assert [letter.reason for letter in system.dead_letters.recent] == ["nobody waits for the answer"]


async def test_a_failing_handler_fails_its_ask_with_the_cause():
    async with ActorSystem.create("t", supervisor_strategy=stopping()) as system:
        ref = await system.actor_of(recorder("a", []), "a")
        with pytest.raises(ActorFailed) as caught:
            await ref.ask(Crash(ValueError("boom")), timeout=1)
        assert isinstance(caught.value.__cause__, ValueError)
        await ref.wait_terminated()
        with pytest.raises(ActorStopped):
            await ref.ask(Say(1), timeout=1)


async def test_a_stop_fails_queued_asks_at_once_and_makes_dead_letters_of_the_rest():
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(recorder("a", []), "a")
        entered, leave = trio.Event(), trio.Event()
        ref.tell(Block(entered, leave))
        await entered.wait()
        ref.tell("lost")

        async def asks():
            with pytest.raises(ActorStopped):
                await ref.ask(Say(1), timeout=1000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(asks)
            await trio.testing.wait_all_tasks_blocked()
            ref.stop()
            leave.set()
        ref.tell("too late")
        assert [letter.message for letter in system.dead_letters.recent] == ["lost", Say(1), "too late"]


async def test_a_full_mailbox_raises_or_drops_as_its_policy_says():
    async with ActorSystem.create("t") as system:
        for overflow in ("fail", "drop_new"):
            ref = await system.actor_of(recorder("a", [], capacity=2, overflow=overflow), overflow)
            entered, leave = trio.Event(), trio.Event()
            ref.tell(Block(entered, leave))
            await entered.wait()
            ref.tell(1)
            ref.tell(2)
            if overflow == "fail":
                with pytest.raises(MailboxFull, match="2 messages"):
                    ref.tell(3)
            else:
                ref.tell(3)
                assert system.dead_letters.recent[-1].reason == "the mailbox is full"
            with pytest.raises(MailboxFull):
                await ref.ask(Say(1), timeout=1)
            leave.set()


async def test_send_waits_for_room():
    events = []
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(recorder("a", events, capacity=1), "a")
        entered, leave = trio.Event(), trio.Event()
        ref.tell(Block(entered, leave))
        await entered.wait()
        async with trio.open_nursery() as nursery:
            for i in range(5):
                nursery.start_soon(ref.send, i)
            await trio.testing.wait_all_tasks_blocked()
            leave.set()
        await ref.ask(Say(0), timeout=1)
    assert sorted(what for _, what in events if what.startswith("got")) == [f"got {i}" for i in range(5)]


async def test_an_actor_can_refuse_an_ask_without_failing():
    async def refuse(_actor, ctx):
        ctx.fail(KeyError("no"))

    @frozen
    class Refuse(Request[int]):
        async def __call__(self, actor, ctx):
            await refuse(actor, ctx)

    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(recorder("a", []), "a")
        with pytest.raises(KeyError, match="no"):
            await ref.ask(Refuse(), timeout=1)
        assert await ref.ask(Say("alive"), timeout=1) == "alive"


@frozen
class Later(Request[str]):
    pass


class Deferring(Actor):
    def __init__(self):
        self.slots = []

    async def handle(self, message, ctx):
        if isinstance(message, Later):
            self.slots.append(ctx.defer_reply())
        else:
            self.slots.pop().resolve(message)


async def test_a_deferred_reply_is_resolved_later_or_failed_by_the_stop(autojump_clock):
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(Props(factory=Deferring), "a")
        results = []

        async def ask():
            try:
                results.append(await ref.ask(Later(), timeout=100))
            except ActorStopped as error:
                results.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            ref.tell("now")
            await trio.testing.wait_all_tasks_blocked()
            ref.stop()
        assert results[0] == "now"
        assert isinstance(results[1], ActorStopped)


async def test_names_are_unique_among_the_living():
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(recorder("a", []), "a")
        with pytest.raises(NameTaken):
            await system.actor_of(recorder("a", []), "a")
        ref.stop()
        await ref.wait_terminated()
        again = await system.actor_of(recorder("a", []), "a")
        assert again != ref


@given(plan=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60), _seed=st.random_module())
async def test_messages_of_one_sender_arrive_in_order_and_none_is_lost(plan, _seed):
    got = []

    class Sink(Actor):
        async def handle(self, message, ctx):
            if message[1] % 3 == 0:
                await trio.lowlevel.checkpoint()
            got.append(message)

    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(Props(factory=Sink, capacity=4), "sink")

        async def sender(me):
            for number, (who, pause) in enumerate(plan):
                if who == me:
                    await ref.send((me, number))
                    if pause:
                        await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for me in range(4):
                nursery.start_soon(sender, me)
        # A question is no way to wait: where the mailbox is still full, it is refused.
        await trio.testing.wait_all_tasks_blocked()
    for me in range(4):
        assert [number for who, number in got if who == me] == [n for n, (who, _) in enumerate(plan) if who == me]
