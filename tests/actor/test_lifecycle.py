"""Start, stop, restart, escalation, watch: the effectful half of supervision."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.actor import (
    ActorEscalated,
    ActorEvent,
    ActorFailed,
    ActorRestarted,
    ActorStarted,
    ActorStopped,
    ActorSystem,
    ActorTerminated,
    ChildEscalated,
    ChildSpec,
    Directive,
    Request,
    Restart,
    SupervisorGaveUp,
    escalating,
    one_for_one,
    stopping,
)

from .kit import Block, Crash, Say, Spawn, recorder


def only(events, name):
    return [what for who, what in events if who == name]


async def test_children_stop_in_reverse_start_order_before_their_parent():
    events = []
    children = {name: recorder(name, events) for name in "abc"}
    async with ActorSystem.create("t") as system:
        await system.actor_of(recorder("p", events, children=children), "p")
    assert events == [
        ("p", "start1"), ("a", "start1"), ("b", "start1"), ("c", "start1"),
        ("c", "stop"), ("b", "stop"), ("a", "stop"), ("p", "stop"),
    ]  # fmt: skip


async def test_cancellation_from_above_keeps_the_order():
    events = []
    children = {name: recorder(name, events) for name in "abc"}
    with trio.CancelScope() as scope:
        async with ActorSystem.create("t") as system:
            await system.actor_of(recorder("p", events, children=children), "p")
            scope.cancel(reason="test")
            await trio.sleep_forever()
    assert [event for event in events if event[1] == "stop"] == [(name, "stop") for name in "cbap"]


async def test_a_failed_child_restarts_with_a_new_instance_and_keeps_its_mail():
    events = []
    async with ActorSystem.create("t", supervisor_strategy=one_for_one()) as system:
        ref = await system.actor_of(recorder("a", events), "a")
        ref.tell(Crash(ValueError("boom")))
        ref.tell("kept")
        assert await ref.ask(Say("alive"), timeout=1) == "alive"
    assert only(events, "a") == ["start1", "pre_restart", "start2", "got kept", "stop"]


async def test_a_restart_stops_the_children_first():
    events = []
    async with ActorSystem.create("t", supervisor_strategy=one_for_one()) as system:
        children = {"x": recorder("x", events), "y": recorder("y", events)}
        ref = await system.actor_of(recorder("p", events, children=children), "p")
        ref.tell(Crash(ValueError()))
        await ref.ask(Say(1), timeout=1)
        after = [event for event in events if event != ("p", "got")]
    assert after[3:8] == [("y", "stop"), ("x", "stop"), ("p", "pre_restart"), ("p", "start2"), ("x", "start1")]


async def test_resume_keeps_the_instance():
    events = []
    strategy = one_for_one({ValueError: Directive.RESUME})
    async with ActorSystem.create("t", supervisor_strategy=strategy) as system:
        ref = await system.actor_of(recorder("a", events), "a")
        with pytest.raises(ActorFailed):
            await ref.ask(Crash(ValueError()), timeout=1)
        assert await ref.ask(Say(1), timeout=1) == 1
    assert only(events, "a") == ["start1", "stop"]


async def test_an_escalation_ends_the_system_with_the_cause_naked():
    with pytest.raises(ChildEscalated) as caught:
        async with ActorSystem.create("t") as system:
            parent = await system.actor_of(recorder("p", [], strategy=escalating()), "p")
            child = await parent.ask(Spawn(recorder("c", []), "c"), timeout=1)
            child.tell(Crash(ValueError("deep")))
            await trio.sleep_forever()
    assert caught.value.path == "/p"
    inner = caught.value.__cause__
    assert isinstance(inner, ChildEscalated)
    assert inner.path == "/p/c"
    assert str(inner.__cause__) == "deep"


async def test_more_failures_than_the_window_allows_fail_the_supervisor(autojump_clock):
    events = []
    strategy = one_for_one(max_restarts=3, within=60)
    async with ActorSystem.create("t", supervisor_strategy=stopping()) as system:
        parent = await system.actor_of(recorder("p", events, strategy=strategy), "p")
        child = await parent.ask(Spawn(recorder("c", events), "c"), timeout=1)
        for _ in range(3):
            child.tell(Crash(ValueError()))
            await child.ask(Say(1), timeout=1)
        await trio.sleep(60)
        for _ in range(3):
            child.tell(Crash(ValueError()))
            await child.ask(Say(1), timeout=1)
        assert not parent.is_terminated
        child.tell(Crash(ValueError("last")))
        await parent.wait_terminated()
        assert child.is_terminated
    assert only(events, "c").count("pre_restart") == 6


async def test_giving_up_names_the_child_and_the_window():
    strategy = one_for_one(max_restarts=0)
    with pytest.raises(SupervisorGaveUp, match=r"gave up on /a: more than 0 restarts within 60s.*boom"):
        async with ActorSystem.create("t", supervisor_strategy=strategy) as system:
            (await system.actor_of(recorder("a", []), "a")).tell(Crash(ValueError("boom")))
            await trio.sleep_forever()


async def test_a_failing_first_start_reaches_the_spawner_and_frees_the_name():
    async def fail(_ctx):
        raise OSError("no device")

    async with ActorSystem.create("t") as system:
        with pytest.raises(ActorFailed) as caught:
            await system.actor_of(recorder("a", [], pre_start=fail), "a")
        assert isinstance(caught.value.__cause__, OSError)
        await system.actor_of(recorder("a", []), "a")


async def test_a_failing_background_task_is_a_failure_of_its_actor():
    events = []

    async def broken():
        raise OSError("background")

    async def start_task(ctx):
        if ctx.incarnation == 1:
            ctx.spawn_task(broken)

    async with ActorSystem.create("t", supervisor_strategy=one_for_one()) as system:
        await system.actor_of(recorder("a", events, pre_start=start_task), "a")
        await trio.testing.wait_all_tasks_blocked()
    assert only(events, "a") == ["start1", "pre_restart", "start2", "stop"]


async def test_background_tasks_end_with_the_incarnation():
    ended = []

    async def forever():
        try:
            await trio.sleep_forever()
        finally:
            ended.append(True)

    async def start_task(ctx):
        ctx.spawn_task(forever)

    async with ActorSystem.create("t", supervisor_strategy=one_for_one()) as system:
        ref = await system.actor_of(recorder("a", [], pre_start=start_task), "a")
        ref.tell(Crash(ValueError()))
        await ref.ask(Say(1), timeout=1)
        assert len(ended) == 1
    assert len(ended) == 2


async def test_a_stop_cuts_a_start_short_but_lets_the_message_in_hand_finish(autojump_clock):
    events = []

    async def slow(_ctx):
        await trio.sleep(1000)

    async with ActorSystem.create("t") as system:
        busy = await system.actor_of(recorder("b", events), "b")
        entered, leave = trio.Event(), trio.Event()
        busy.tell(Block(entered, leave))
        await entered.wait()
        busy.stop()

        async def spawn_slow():
            with pytest.raises(ActorStopped):
                await system.actor_of(recorder("s", events, pre_start=slow), "s")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(spawn_slow)
            await trio.sleep(1)
            leave.set()
            await busy.wait_terminated()
            system.terminate()
        assert trio.current_time() < 2
    assert only(events, "b") == ["start1", "left the block", "stop"]


async def test_a_handler_and_a_hook_that_hang_are_cut_at_the_shutdown_deadline(autojump_clock):
    events = []

    async def hang(_ctx):
        await trio.sleep_forever()

    async with ActorSystem.create("t") as system:
        ref = await system.actor_of(recorder("a", events, shutdown=2, post_stop=hang), "a")
        entered = trio.Event()
        ref.tell(Block(entered, trio.Event()))
        await entered.wait()
    assert trio.current_time() == pytest.approx(4, abs=0.01)
    assert only(events, "a") == ["start1", "stop"]


async def test_a_watcher_hears_exactly_once_after_the_name_is_free():
    events = []

    async def watch(ref, _actor, ctx):
        ctx.watch(ref)

    async def unwatch(ref, _actor, ctx):
        ctx.unwatch(ref)

    def call(fn, ref):
        async def message(actor, ctx):
            await fn(ref, actor, ctx)

        return message

    async with ActorSystem.create("t") as system:
        watcher = await system.actor_of(recorder("w", events), "w")
        ref = await system.actor_of(recorder("a", []), "a")
        watcher.tell(call(watch, ref))
        watcher.tell(call(watch, ref))
        await watcher.ask(Say(1), timeout=1)
        ref.stop()
        await ref.wait_terminated()
        await watcher.ask(Say(1), timeout=1)
        assert only(events, "w").count("terminated /a") == 1
        # Watching the dead delivers at once; unwatching removes what was queued.
        watcher.tell(call(watch, ref))
        await watcher.ask(Say(1), timeout=1)
        await trio.testing.wait_all_tasks_blocked()
        assert only(events, "w").count("terminated /a") == 2

        async def both(_actor, ctx):
            ctx.watch(ref)
            ctx.unwatch(ref)

        watcher.tell(both)
        await trio.testing.wait_all_tasks_blocked()
        assert only(events, "w").count("terminated /a") == 2


async def test_an_error_in_the_block_comes_out_naked_after_the_stop():
    events = []
    with pytest.raises(LookupError, match="mine"):
        async with ActorSystem.create("t") as system:
            await system.actor_of(recorder("a", events), "a")
            raise LookupError("mine")
    assert events[-1] == ("a", "stop")


async def test_failures_mixed_with_cancellation_do_not_leak():
    async def messy(_actor, _ctx):
        async def fails_when_cancelled():
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("while being torn down")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fails_when_cancelled)
            nursery.start_soon(trio.sleep_forever)

    with trio.CancelScope() as scope:
        async with ActorSystem.create("t") as system:
            ref = await system.actor_of(recorder("a", [], shutdown=0.1), "a")
            ref.tell(messy)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel(reason="test")
    assert scope.cancelled_caught or scope.cancel_called


async def test_the_tree_shows_path_state_mail_and_restarts():
    async with ActorSystem.create("t", supervisor_strategy=one_for_one()) as system:
        ref = await system.actor_of(recorder("p", [], children={"c": recorder("c", [])}), "p")
        ref.tell(Crash(ValueError("boom")))
        await ref.ask(Say(1), timeout=1)
        (node,) = system.tree().children
        assert (node.path, node.state, node.queued, node.restarts) == ("/p", "running", 0, 1)
        assert node.last_failure == "ValueError('boom')"
        assert [child.path for child in node.children] == ["/p/c"]


async def test_a_stop_from_outside_overrules_the_wish_of_a_permanent_child():
    async def quit_and_be_stopped(_actor, ctx):
        ctx.stop()
        ctx.self_ref.stop()

    async def quit_only(_actor, ctx):
        ctx.stop()

    async def start(ctx):
        await ctx.start(ChildSpec(id="c", props=recorder("c", []), restart=Restart.PERMANENT))

    async with ActorSystem.create("t") as system:
        await system.actor_of(recorder("p", [], pre_start=start), "p")
        child = system.lookup("/p/c")
        child.tell(quit_only)
        assert await child.ask(Say(1), timeout=1) == 1
        child.tell(quit_and_be_stopped)
        await child.wait_terminated()


async def test_every_turn_of_a_life_is_an_event():
    seen = []
    with pytest.raises(ChildEscalated):
        async with ActorSystem.create("t", supervisor_strategy=one_for_one({KeyError: Directive.ESCALATE})) as system:
            system.events.subscribe(ActorEvent, seen.append)
            ref = await system.actor_of(recorder("a", []), "a")
            first, last = ValueError("first"), KeyError("last")
            ref.tell(Crash(first))
            await ref.ask(Say(1), timeout=1)
            ref.tell(Crash(last))
            await trio.sleep_forever()
    assert seen[:4] == [
        ActorStarted("/a", 1),
        ActorRestarted("/a", first),
        ActorStarted("/a", 2),
        ActorEscalated("/a", seen[3].failure),
    ]
    assert seen[3].failure.__cause__ is last
    assert [type(event) for event in seen[4:]] == [ActorTerminated, ActorEscalated, ActorTerminated]


OPERATIONS = st.one_of(
    st.tuples(st.just("crash"), st.integers(0, 3)),
    st.tuples(st.just("stop"), st.integers(0, 3)),
    st.tuples(st.just("advance"), st.integers(1, 80)),
)


@given(operations=st.lists(OPERATIONS, max_size=25), _seed=st.random_module())
def test_survivors_and_restart_counts_match_an_independent_model(operations, _seed):
    """One supervisor, four children, OTP's rules: who lives, how often each restarted, in which order all stop."""
    events = []

    async def scenario():
        strategy = one_for_one(max_restarts=2, within=60)
        alive = list(range(4))
        starts, window, now, gave_up = [1] * 4, [], 0, False
        async with ActorSystem.create("t", supervisor_strategy=stopping()) as system:
            children = {str(i): recorder(str(i), events) for i in range(4)}
            parent = await system.actor_of(recorder("p", events, strategy=strategy, children=children), "p")
            refs = {node.path[-1]: node for node in system.tree().children[0].children}
            assert len(refs) == 4
            handles = await parent.ask(CHILDREN, timeout=1)
            for what, argument in operations:
                if what == "advance":
                    await trio.sleep(argument)
                    now += argument
                elif argument in alive and what == "stop":
                    handles[argument].stop()
                    alive.remove(argument)
                elif argument in alive:
                    handles[argument].tell(Crash(ValueError()))
                    window = [at for at in window if now - at < 60]
                    if len(window) >= 2:
                        gave_up = True
                    else:
                        window.append(now)
                        starts[argument] += 1
                await trio.testing.wait_all_tasks_blocked()
                assert parent.is_terminated is gave_up
                if gave_up:
                    break
                assert [not handle.is_terminated for handle in handles] == [i in alive for i in range(4)]
            for i in range(4):
                assert sum(what.startswith("start") for what in only(events, str(i))) == starts[i]
            before = len(events)
        if not gave_up:
            stops = [who for who, what in events[before:] if what == "stop"]
            assert stops == [str(i) for i in reversed(alive)] + ["p"]

    events.clear()
    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))


class _Children(Request):
    async def __call__(self, _actor, ctx):
        return ctx.children


CHILDREN = _Children()
