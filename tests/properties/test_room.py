"""Who gets room, who gives way, and what comes back in which order: a full mailbox and a stash, step by step."""

import trio
from hypothesis import example, given
from hypothesis import strategies as st

from atomr_trio.actor import (
    Actor,
    ActorSystem,
    MailboxFull,
    OverflowStrategy,
    Props,
    StashFull,
    escalating,
    one_for_one,
    stopping,
)

from .kit import run, settle


class Gated(Actor):
    """Notes what it gets, and holds on to the first message until the gate opens."""

    def __init__(self, got, gate):
        self.got, self.gate = got, gate

    async def handle(self, message, ctx):
        self.got.append(message)
        await self.gate.wait()


def full_mailbox(capacity, policy, tells, senders, cancelled, late):
    """Return what is handled and what is lost, each with its reason, as the policy's name says."""
    queue, lost, refused = [], [], []
    waiting = []

    def tell(message):
        if len(queue) < capacity:
            queue.append(message)
        elif policy is OverflowStrategy.FAIL:
            refused.append(message)
        elif policy is OverflowStrategy.DROP_HEAD and not waiting:
            lost.append((queue.pop(0), "newer mail took its place"))
            queue.append(message)
        else:
            lost.append((message, "the mailbox is full"))

    for number in range(tells):
        tell(("tell", number))
    for number in range(senders):
        (queue if len(queue) < capacity else waiting).append(("send", number))
    waiting = [sender for sender in waiting if sender[1] not in cancelled]
    for number in range(late):
        tell(("late", number))
    return [*queue, *waiting], lost, refused


@given(
    capacity=st.integers(1, 3),
    policy=st.sampled_from(OverflowStrategy),
    tells=st.integers(0, 5),
    senders=st.integers(0, 4),
    cancelled=st.sets(st.integers(0, 3), max_size=2),
    late=st.integers(0, 3),
    _seed=st.random_module(),
)
@example(1, OverflowStrategy.DROP_HEAD, 1, 3, {1}, 2, None)
@example(2, OverflowStrategy.DROP_HEAD, 4, 0, set(), 1, None)
@example(1, OverflowStrategy.DROP_NEW, 2, 3, {0}, 1, None)
@example(1, OverflowStrategy.FAIL, 2, 2, set(), 1, None)
def test_a_full_mailbox_does_what_its_policy_says(capacity, policy, tells, senders, cancelled, late, _seed):
    got, refused, gate = [], [], trio.Event()

    async def scenario():
        async with ActorSystem.create("t") as system:
            ref = await system.actor_of(
                Props(factory=lambda: Gated(got, gate), capacity=capacity, overflow=policy), "a"
            )
            ref.tell("first")
            await settle()

            def tell(message):
                try:
                    ref.tell(message)
                except MailboxFull:
                    refused.append(message)

            async def send(number, scope):
                with scope:
                    await ref.send(("send", number))

            async with trio.open_nursery() as nursery:
                for number in range(tells):
                    tell(("tell", number))
                scopes = [trio.CancelScope() for _ in range(senders)]
                for number, scope in enumerate(scopes):
                    nursery.start_soon(send, number, scope)
                    await settle()
                for number, scope in enumerate(scopes):
                    if number in cancelled:
                        scope.cancel(reason="test")
                await settle()
                for number in range(late):
                    tell(("late", number))
                gate.set()
            await settle()
            lost = [(letter.message, letter.reason) for letter in system.dead_letters.recent]
            assert all(letter.path == "/a" for letter in system.dead_letters.recent)
        expected = full_mailbox(capacity, policy, tells, senders, cancelled, late)
        assert (got[1:], lost, refused) == expected

    run(scenario)


class Putting(Actor):
    """Stashes numbers, and does as it is told with what it has put aside."""

    def __init__(self, got):
        self.got = got
        self.passing = set()

    async def handle(self, message, ctx):
        match message:
            case "unstash", count:
                self.passing = None
                ctx.unstash(count)
            case "task", count:
                self.passing = None
                ctx.spawn_task(self.later, ctx, count)
            case number if self.passing is None:
                self.got.append(number)
            case number:
                try:
                    ctx.stash()
                except StashFull:
                    self.got.append(f"no room for {number}")

    async def later(self, ctx, count):
        await trio.sleep(1)
        if count == 2:
            # It reaches the waiting actor first, and yet it is new mail.
            ctx.self_ref.tell("mail")
        ctx.unstash(count)


@given(
    capacity=st.integers(0, 4),
    told=st.integers(0, 6),
    counts=st.lists(st.none() | st.integers(0, 3), min_size=1, max_size=3),
    by_task=st.booleans(),
    _seed=st.random_module(),
)
@example(3, 4, [1, 1], False, None)
@example(3, 3, [2], True, None)
@example(3, 3, [1, 1, None], False, None)
def test_what_is_put_aside_comes_back_in_its_order_before_other_mail(capacity, told, counts, by_task, _seed):
    got = []

    async def scenario():
        async with ActorSystem.create("t") as system:
            props = Props(factory=lambda: Putting(got), stash_capacity=capacity)
            ref = await system.actor_of(props, "a")
            for number in range(told):
                ref.tell(number)
            await settle()
            kept = list(range(min(told, capacity)))
            expected = [f"no room for {number}" for number in range(capacity, told)]
            for count in counts:
                ref.tell(("task" if by_task else "unstash", count))
                if not by_task:
                    ref.tell("next")
                await trio.sleep(2)
                back, kept = kept[:count], kept[len(kept[:count]) :]
                expected += back
                expected += ["next"] if not by_task else ["mail"] if count == 2 else []
                assert got == expected
        assert [letter.message for letter in system.dead_letters.recent] == kept

    run(scenario)


def test_what_is_given_back_last_is_handled_first():
    got = []

    class Twice(Actor):
        async def handle(self, message, ctx):
            if message == "back":
                ctx.become(self.note)
                ctx.unstash(1)
                ctx.unstash(2)
            else:
                ctx.stash()

        async def note(self, message, ctx):
            got.append(message)

    async def scenario():
        async with ActorSystem.create("t") as system:
            ref = await system.actor_of(Props(factory=Twice), "a")
            for message in (1, 2, 3, "back", 4):
                ref.tell(message)
            await settle()

    run(scenario)
    assert got == [2, 3, 1, 4]


@given(count=st.integers(1, 4), _seed=st.random_module())
def test_who_is_stopped_before_it_ran_never_starts(count, _seed):
    events = []

    class Child(Actor):
        async def pre_start(self, ctx):
            events.append(ctx.path)

        async def post_stop(self, ctx):
            events.append(ctx.path)

    class Parent(Actor):
        async def handle(self, message, ctx):
            for number in range(count):
                ctx.spawn_soon(Props(factory=Child), str(number)).stop()

    async def scenario():
        async with ActorSystem.create("t") as system:
            ref = await system.actor_of(Props(factory=Parent), "p")
            ref.tell("go")
            await settle()
            assert [node.path for node in system.tree().walk()] == ["/", "/p"]

    run(scenario)
    assert events == []


@given(timers=st.integers(0, 3), fails=st.booleans(), _seed=st.random_module())
@example(0, True, None)
@example(2, False, None)
def test_a_new_life_hears_nothing_of_the_old_ones_tasks_and_timers(timers, fails, _seed):
    got, lives = [], []

    class Old(Actor):
        async def pre_start(self, ctx):
            lives.append(ctx.incarnation)
            for number in range(timers if ctx.incarnation == 1 else 0):
                ctx.timers.start_once(number, ("timer", number), 1)

        async def fail(self):
            raise ValueError

        async def handle(self, message, ctx):
            if message == "go":
                if fails:
                    ctx.spawn_task(self.fail)
                # What the timers and the task have to say is queued when the failure comes.
                await trio.sleep(2)
                raise KeyError
            got.append(message)

    async def scenario():
        async with ActorSystem.create("t", supervisor_strategy=one_for_one(max_restarts=100)) as system:
            ref = await system.actor_of(Props(factory=Old), "a")
            ref.tell("go")
            await trio.sleep(10)

    run(scenario)
    assert (got, lives) == ([], [1, 2])


@given(told_by=st.sampled_from(["itself", "parent", "system"]), _seed=st.random_module())
def test_a_failure_of_who_is_being_stopped_is_nobodys_but_its_own(told_by, _seed):
    """The supervisor would escalate it; the stop was decided before."""

    async def scenario():
        async with ActorSystem.create("t", supervisor_strategy=stopping()) as system:

            class Failing(Actor):
                async def handle(self, message, ctx):
                    ctx.self_ref.stop() if told_by == "itself" else await trio.sleep(1)
                    raise ValueError

            class Parent(Actor):
                supervisor_strategy = escalating()

                async def pre_start(self, ctx):
                    self.child = await ctx.spawn(Props(factory=Failing), "child")

                async def handle(self, message, ctx):
                    self.child.stop()

            parent = await system.actor_of(Props(factory=Parent), "p")
            child = system.lookup("/p/child")
            child.tell("go")
            await settle()
            if told_by == "parent":
                parent.tell("stop it")
            if told_by == "system":
                parent.stop()
            await trio.sleep(5)
            assert child.is_terminated
            assert parent.is_terminated is (told_by == "system")

    run(scenario)
