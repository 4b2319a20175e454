"""Coordinated shutdown: phases in order, once, within their deadlines, whatever fails around it."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.actor import ActorSystem, CoordinatedShutdown, Phase, ShutdownPlan, ShutdownUnderWay

from .kit import recorder

NAMES = ["unbind", "drain", "stop_actors", "close"]


async def nothing():
    await trio.lowlevel.checkpoint()


def note(events, what):
    async def task():
        events.append(what)
        await trio.lowlevel.checkpoint()

    return task


def test_phases_need_different_names_and_time():
    with pytest.raises(ValueError, match="must differ"):
        ShutdownPlan((Phase("a"), Phase("a")))
    with pytest.raises(ValueError, match="must be"):
        Phase("a", 0.0)


async def test_leaving_the_block_runs_the_phases_around_the_stop_of_the_actors():
    events = []
    async with ActorSystem.create("t") as system:
        for name in reversed(NAMES):
            if name != "stop_actors":
                system.shutdown.add_task(name, "note", note(events, name))
        system.shutdown.add_task("close", "gone", nothing)
        await system.actor_of(recorder("a", events), "a")
    assert events == [("a", "start1"), "unbind", "drain", ("a", "stop"), "close"]
    assert system.shutdown.is_done
    assert system.shutdown.faults == ()


async def test_a_cancelled_or_failed_block_still_shuts_down_in_order():
    for way in ("cancel", "raise", "fail the system"):
        events = []
        with trio.CancelScope() as scope:
            try:
                async with ActorSystem.create("t") as system:
                    system.shutdown.add_task("unbind", "note", note(events, "unbind"))
                    system.shutdown.add_task("close", "note", note(events, "close"))
                    if way == "raise":
                        raise LookupError("mine")
                    if way == "cancel":
                        scope.cancel(reason="test")
                    else:
                        system._root.stop("test")
                        system.root_failed(LookupError("root"))
                    await trio.sleep_forever()
            except LookupError:
                assert way != "cancel"
        assert events == ["unbind", "close"], way
        assert scope.cancelled_caught is (way == "cancel")


async def test_a_second_call_waits_for_the_first_and_cancelling_a_caller_cancels_nothing_else(autojump_clock):
    events = []

    async def slow():
        await trio.sleep(3)
        events.append("slow")

    async with ActorSystem.create("t") as system:
        system.shutdown.add_task("drain", "slow", slow)
        with trio.move_on_after(1):
            await system.shutdown.run("first")
        assert system.shutdown.phase == "drain"
        assert system.shutdown.reason == "first"
        await system.shutdown.run("second")
        assert events == ["slow"]
        assert system.shutdown.reason == "first"
        assert system.shutdown.phase is None
        assert trio.current_time() == pytest.approx(3, abs=0.01)
    assert events == ["slow"]


async def test_an_overrun_and_a_failure_are_faults_and_the_next_phase_goes_on(autojump_clock, caplog):
    events, error = [], OSError("no")

    async def fail():
        raise error

    async with ActorSystem.create("t") as system:
        system.shutdown.add_task("unbind", "fails", fail)
        system.shutdown.add_task("unbind", "hangs", trio.sleep_forever)
        system.shutdown.add_task("drain", "hangs shorter", trio.sleep_forever, timeout=2)
        system.shutdown.add_task("drain", "note", note(events, "drain"))
        system.shutdown.add_task("close", "note", note(events, "close"))
    assert trio.current_time() == pytest.approx(7, abs=0.01)
    assert events == ["drain", "close"]
    faults = [(fault.phase, fault.task, fault.failure) for fault in system.shutdown.faults]
    assert faults == [("unbind", "fails", error), ("unbind", "hangs", None), ("drain", "hangs shorter", None)]
    assert "t, phase drain: hangs shorter took more than 2s" in caplog.text


async def test_an_abort_cancels_the_phase_and_skips_the_rest_but_not_the_actors(autojump_clock):
    events = []
    async with ActorSystem.create("t") as system:
        await system.actor_of(recorder("a", events), "a")
        system.shutdown.add_task("unbind", "hangs", trio.sleep_forever, timeout=1000)
        system.shutdown.add_task("close", "note", note(events, "close"))
        system.shutdown.begin("first signal")
        await trio.sleep(1)
        system.shutdown.abort("second signal")
        await system.shutdown.run("joins")
        assert trio.current_time() == pytest.approx(1, abs=0.01)
        assert events == [("a", "start1")]
        system.shutdown.abort("third signal")
    assert events == [("a", "start1"), ("a", "stop")]
    assert system.shutdown.faults == ()


async def test_the_actors_take_the_time_that_their_own_deadlines_allow(autojump_clock):
    events = []

    async def slow(_ctx):
        await trio.sleep(20)
        events.append("slow")

    async with ActorSystem.create("t") as system:
        await system.actor_of(recorder("a", events, shutdown=30, post_stop=slow), "a")
        system.shutdown.add_task("close", "note", note(events, "close"))
    assert events == [("a", "start1"), ("a", "stop"), "slow", "close"]
    assert system.shutdown.faults == ()


async def test_an_abort_before_the_begin_skips_everything():
    events = []
    async with ActorSystem.create("t") as system:
        system.shutdown.add_task("unbind", "note", note(events, "unbind"))
        system.shutdown.abort("at once")
    assert events == []
    assert system.shutdown.is_done


async def test_a_task_may_be_added_until_its_phase_begins_and_removed_again():
    events = []

    async def add_more():
        system.shutdown.add_task("drain", "later", note(events, "later"))
        with pytest.raises(ShutdownUnderWay, match="t is shutting down and its phase unbind has begun"):
            system.shutdown.add_task("unbind", "too late", nothing)

    async with ActorSystem.create("t") as system:
        with pytest.raises(ValueError, match="no shutdown phase 'drian'; there are unbind, drain"):
            system.shutdown.add_task("drian", "typo", nothing)
        removed = system.shutdown.add_task("drain", "removed", note(events, "removed"))
        system.shutdown.remove_task(removed)
        system.shutdown.remove_task(removed)
        system.shutdown.add_task("unbind", "adds", add_more)
    assert events == ["later"]
    assert system.shutdown.faults == ()


async def test_a_system_may_have_phases_of_its_own():
    events = []
    phases = (Phase("stop_actors"), Phase("flush", timeout=1))
    async with ActorSystem.create("t", shutdown_phases=phases) as system:
        await system.actor_of(recorder("a", events), "a")
        system.shutdown.add_task("flush", "note", note(events, "flush"))
    assert events == [("a", "start1"), ("a", "stop"), "flush"]
    with pytest.raises(ValueError, match="no shutdown phase 'stop_actors'"):
        async with ActorSystem.create("t", shutdown_phases=(Phase("flush"),)):
            raise AssertionError


TASKS = st.tuples(
    st.integers(0, 2),  # phase
    st.sampled_from(["finish", "fail", "fail when cancelled"]),
    st.integers(1, 10),  # works for so long
    st.integers(1, 10),  # has so long
)


@given(tasks=st.lists(TASKS, max_size=12), abort_at=st.none() | st.integers(0, 30), _seed=st.random_module())
def test_phases_never_overlap_and_end_in_time(tasks, abort_at, _seed):
    """Against a model on integers; halves keep an abort apart from everything else that happens."""

    async def scenario():
        events, phases = [], (Phase("a"), Phase("b"), Phase("c"))
        shutdown = CoordinatedShutdown("t", phases)

        def work(phase, way, duration):
            async def run():
                events.append(("begin", phase))
                try:
                    await trio.sleep(duration)
                    if way == "fail":
                        raise OSError
                except trio.Cancelled:
                    if way == "fail when cancelled":
                        raise LookupError from None
                    raise
                finally:
                    events.append(("end", phase))

            return run

        for i, (phase, way, duration, timeout) in enumerate(tasks):
            # Half a second apart: a task either finishes or overruns, never both at once.
            shutdown.add_task("abc"[phase], str(i), work(phase, way, duration - 0.5), timeout=timeout)
        start, spans, now = trio.current_time(), [], 0.0
        for phase in range(3):
            spans.append(now)
            now += max((min(d - 0.5, t) for p, _, d, t in tasks if p == phase), default=0)
        end = now if abort_at is None else min(now, abort_at + 0.25)

        async def aborter():
            if abort_at is not None:
                await trio.sleep(abort_at + 0.25)
                shutdown.abort("test")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(shutdown.drive)
            nursery.start_soon(aborter)
            for _ in range(2):
                nursery.start_soon(shutdown.run, "test")
            await shutdown.run("test")
            assert trio.current_time() - start == pytest.approx(end, abs=0.01)
            assert shutdown.is_done
            nursery.cancel_scope.cancel(reason="done")
        order = [phase for _, phase in events]
        assert order == sorted(order)
        for phase in range(3):
            begun = spans[phase] <= end if abort_at is not None else True
            expected = sum(p == phase for p, *_ in tasks) if begun else 0
            assert events.count(("begin", phase)) == events.count(("end", phase)) == expected
        if abort_at is None:
            bad = {str(i) for i, (_, way, d, t) in enumerate(tasks) if d - 0.5 > t or way == "fail"}
            assert {fault.task for fault in shutdown.faults} == bad
            assert len(shutdown.faults) == len(bad)

    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))
