"""What can be seen of a running system: its tree, its log, and what holds its loop."""

import logging
import os
import signal
import time

import trio

from atomr_trio.actor import (
    Actor,
    ActorSystem,
    OverflowStrategy,
    Props,
    Request,
    StreamRequest,
    message_metadata,
    one_for_one,
    stopping,
)

from .kit import Block, Crash, Say, recorder


class Sleep(Request, StreamRequest):
    pass


class Sleeper(Actor):
    async def handle(self, message, ctx):
        await trio.sleep(100)


async def settle():
    await trio.testing.wait_all_tasks_blocked()


async def test_the_tree_tells_what_each_actor_does_and_for_how_long(autojump_clock):
    async with ActorSystem.create("t", supervisor_strategy=one_for_one()) as system:
        busy = await system.actor_of(Props(factory=Sleeper, capacity=2, overflow=OverflowStrategy.DROP_NEW), "busy")
        idle = await system.actor_of(recorder("idle", []), "idle")
        await trio.sleep(7)
        with message_metadata(trace=1):
            busy.tell(Sleep())
        await trio.sleep(3)
        for _ in range(4):
            busy.tell(1)
        idle.tell(Crash(ValueError("bad")))
        await settle()
        nodes = {node.path: node for node in system.tree().walk()}
        assert list(nodes) == ["/", "/busy", "/idle"]
        node = nodes["/busy"]
        assert (node.state, node.queued, node.peak, node.dropped) == ("running", 2, 2, 2)
        assert (node.message, node.message_age) == ("Sleep", 3)
        node = nodes["/idle"]
        assert (node.restarts, node.last_failure) == (1, "ValueError('bad')")
        assert (node.message, node.message_age, node.peak) == (None, None, 0)
        assert str(system.tree()).splitlines() == [
            "/  running",
            "  busy  running  queued 2 (peak 2)  dropped 2  handles Sleep for 3s",
            "  idle  running  restarts 1  last failure ValueError('bad')",
        ]
        busy.stop()


async def test_what_was_handled_is_not_in_hand_any_more():
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(recorder("a", []), "a")
        await ref.ask(Say(1), timeout=1)
        ref.tell("x")
        await settle()
        (node,) = system.tree().children
        assert node.message is None


class Heard(logging.Handler):
    """Keeps what is logged, and wakes who waits for it."""

    def __init__(self):
        super().__init__()
        self.texts, self.news = [], trio.Event()

    def emit(self, record):
        self.texts.append(record.getMessage())
        self.news.set()


async def test_a_signal_writes_the_tree_to_the_log():
    before, log = signal.getsignal(signal.SIGUSR1), logging.getLogger("atomr_trio.actor")
    async with ActorSystem.create("t", dump_signal=signal.SIGUSR1) as system:
        await system.actor_of(recorder("a", []), "shown")
        for _ in range(2):
            heard = Heard()
            log.addHandler(heard)
            os.kill(os.getpid(), signal.SIGUSR1)
            with trio.fail_after(5):
                await heard.news.wait()
            log.removeHandler(heard)
            assert "  shown  running" in heard.texts[0]
    assert signal.getsignal(signal.SIGUSR1) is before


async def test_the_log_tells_start_restart_escalation_and_stop_with_their_fields(caplog, autojump_clock):
    caplog.set_level(logging.DEBUG, "atomr_trio.actor")
    async with ActorSystem.create("t", supervisor_strategy=one_for_one(max_restarts=1)) as system:
        keeper = await system.actor_of(recorder("p", [], strategy=stopping()), "p")
        ref = await system.actor_of(recorder("a", []), "a")
        ref.tell(Crash(ValueError("bad")))
        await settle()
        keeper.stop()
        await keeper.wait_terminated()
    said = [(record.event, record.actor) for record in caplog.records if hasattr(record, "event")]
    assert said == [
        ("started", "/"),
        ("started", "/p"),
        ("started", "/a"),
        ("failed", "/a"),
        ("restarting", "/a"),
        ("started", "/a"),
        ("stopped", "/p"),
        ("stopped", "/a"),
        ("stopped", "/"),
    ]
    (failed,) = [record for record in caplog.records if getattr(record, "event", "") == "failed"]
    assert (failed.directive, repr(failed.failure)) == ("restart", "ValueError('bad')")
    assert "kit.py" in failed.getMessage()


async def test_a_handler_that_holds_the_loop_is_named(caplog):
    class Hog(Actor):
        async def handle(self, message, ctx):
            await trio.lowlevel.checkpoint()
            until = time.perf_counter() + 0.02
            while time.perf_counter() < until:
                pass

    async with ActorSystem.create("t", slow_step=0.01) as system, ActorSystem.create("u", slow_step=0.01):
        hog = await system.actor_of(Props(factory=Hog), "hog")
        for _ in range(3):
            await hog.ask(Sleep(), timeout=5)
    slow = [record for record in caplog.records if getattr(record, "event", "") == "slow_step"]
    # Once, by the system that it belongs to: what follows within a second is only counted. Where the machine is busy,
    # others may be slow as well.
    [hogged] = [record for record in slow if record.actor == "/hog"]
    assert hogged.seconds >= 0.02


async def test_many_dead_letters_end_in_a_summary(caplog):
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(recorder("a", []), "a")
        ref.stop()
        await ref.wait_terminated()
        for _ in range(25):
            ref.tell("x")
    assert "25 dead letters in all, the first 10 were logged" in caplog.text
    assert caplog.text.count("dead letter for /a") == 10


async def test_a_message_in_hand_keeps_its_age_while_others_queue(autojump_clock):
    entered, leave = trio.Event(), trio.Event()
    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(recorder("a", []), "a")
        await trio.sleep(1)
        ref.tell(Block(entered, leave))
        await entered.wait()
        await trio.sleep(2.5)
        ref.tell("later")
        (node,) = system.tree().children
        assert (node.message, node.message_age, node.queued) == ("Block", 2.5, 1)
        leave.set()
