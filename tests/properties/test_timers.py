"""Keyed timers and the receive timeout, to the instant, against a model of each.

Whatever the actor does of its own ends at a fraction of a second that no timer is due at, so that the model is exact.
"""

import trio
from attrs import define, field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.actor import Actor, ActorStopped, ActorSystem, Props, ReceiveTimeout, Request, one_for_one

from .kit import run, settle

KEYS = "xyz"


@frozen
class Do(Request):
    """Keep the actor for so long, waiting (``busy``) or holding the loop (``hog``); then turn the timers."""

    how: str
    seconds: float
    turns: tuple


class Timed(Actor):
    def __init__(self, got, contexts):
        self.got, self.contexts = got, contexts

    async def pre_start(self, ctx):
        self.contexts.append(ctx)

    async def handle(self, message, ctx):
        if message == "crash":
            raise ValueError
        if not isinstance(message, Do):
            self.got.append((trio.current_time(), message))
            return None
        if message.how == "busy":
            await trio.sleep(message.seconds)
        elif message.how == "hog":
            trio.lowlevel.current_clock().jump(message.seconds)
        for what, key, seconds, number in message.turns:
            match what:
                case "cancel":
                    ctx.timers.cancel(key)
                case "once":
                    ctx.timers.start_once(key, number, seconds)
                case "rate":
                    ctx.timers.start_fixed_rate(key, number, seconds + 1)
                case "delay":
                    ctx.timers.start_fixed_delay(key, number, seconds + 1)
        return {key for key in KEYS if ctx.timers.is_active(key)}


@define
class Timer:
    what: str
    number: int
    interval: float
    due: float | None
    waits: bool = False

    def fire(self, now):
        """Plan the next beat."""
        if self.what == "once":
            self.due = None
        elif self.what == "delay":
            self.due = now + self.interval
        else:
            while self.due <= now:
                self.due += self.interval


@define
class Model:
    now: float = 0.0
    timers: dict = field(factory=dict)
    got: list = field(factory=list)

    def active(self):
        return {key for key, timer in self.timers.items() if timer.due is not None or timer.waits}

    def pass_time(self, to, *, busy):
        """Let time pass until ``to``; what fires meanwhile is handled, or waits for a busy actor."""
        while True:
            due = min((timer.due for timer in self.timers.values() if timer.due is not None), default=to + 1)
            if due > to:
                break
            for timer in self.timers.values():
                if timer.due == due:
                    self.fire(timer, due, busy=busy)
        self.now = to

    def fire(self, timer, now, *, busy):
        timer.fire(now)
        if busy:
            timer.waits = True
        else:
            self.got.append((now, timer.number))

    def turn(self, turns):
        for what, key, seconds, number in turns:
            self.timers.pop(key, None)
            if what != "cancel":
                interval = seconds if what == "once" else seconds + 1
                self.timers[key] = Timer(what, number, interval, self.now + interval)

    def do(self, how, seconds, turns):
        if how == "busy":
            self.pass_time(self.now + seconds, busy=True)
        elif how == "hog":
            self.now += seconds
        self.turn(turns)
        active = self.active()
        for timer in self.timers.values():
            if timer.waits:
                timer.waits = False
                self.got.append((self.now, timer.number))
            # What has come due while nobody could run is noticed now, and once.
            if timer.due is not None and timer.due <= self.now:
                self.fire(timer, self.now, busy=False)
        return active


TURN = st.tuples(st.sampled_from(["once", "rate", "delay", "cancel"]), st.sampled_from(KEYS), st.integers(0, 3))
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("do"), st.just(0), st.lists(TURN, max_size=3)),
        st.tuples(st.sampled_from(["busy", "busy", "hog"]), st.integers(0, 7), st.lists(TURN, max_size=2)),
        st.tuples(st.just("sleep"), st.integers(1, 6), st.just([])),
        st.tuples(st.just("crash"), st.just(0), st.just([])),
    ),
    max_size=16,
)


@settings(max_examples=180)
@given(operations=OPERATIONS, _seed=st.random_module())
def test_every_timer_fires_when_the_model_says_and_never_stale(operations, _seed):
    got, model, contexts = [], Model(), []

    async def scenario():
        numbers = iter(range(1000))
        async with ActorSystem.create("t", supervisor_strategy=one_for_one(max_restarts=1000)) as system:
            ref = await system.actor_of(Props(factory=lambda: Timed(got, contexts)), "timed")
            for i, (how, seconds, turns) in enumerate([*operations, ("sleep", 10, [])]):
                if how == "sleep":
                    await trio.sleep(seconds)
                elif how == "crash":
                    model.timers.clear()
                    ref.tell("crash")
                else:
                    if seconds or how != "do":
                        seconds += (i + 1) / 64
                    numbered = tuple((*turn, next(numbers)) for turn in turns)
                    active = await ref.ask(Do(how, seconds, numbered), timeout=100)
                    assert model.do(how, seconds, numbered) == active
                await settle()
                await trio.sleep_until(int(-(-trio.current_time() // 1)))
                await settle()
                model.pass_time(trio.current_time(), busy=False)
                assert sorted(got) == sorted(model.got)
            for old in contexts[:-1]:
                try:
                    old.timers.start_once("x", "stale", 1)
                except ActorStopped:
                    continue
                raise AssertionError("an incarnation that is over has no timers")
            ref.stop()
            await trio.sleep(10)
            assert sorted(got) == sorted(model.got)

    run(scenario)


IDLENESS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["set", "set", "busy"]), st.integers(1, 5)),
        st.tuples(st.just("off"), st.none()),
        st.tuples(st.sampled_from(["mail", "crash", "death"]), st.none()),
        st.tuples(st.just("sleep"), st.integers(1, 12)),
    ),
    max_size=16,
)


class Idler(Actor):
    def __init__(self, got):
        self.got = got

    async def handle(self, message, ctx):
        match message:
            case ReceiveTimeout():
                self.got.append(trio.current_time())
            case "set", seconds:
                ctx.set_receive_timeout(seconds)
            case "off", _:
                ctx.set_receive_timeout(None)
            case "busy", seconds:
                await trio.sleep(seconds)
            case "crash", _:
                raise ValueError
            case "death", ref:
                ctx.watch(ref)


@settings(max_examples=120)
@given(operations=IDLENESS, _seed=st.random_module())
def test_the_receive_timeout_comes_after_exactly_so_much_idleness(operations, _seed):
    """Whatever is handled, a timeout too, starts the count again; a restart turns it off; other wake-ups do nothing."""
    got, expected = [], []

    async def scenario():
        timeout, since = None, 0.0
        async with ActorSystem.create("t", supervisor_strategy=one_for_one(max_restarts=1000)) as system:
            ref = await system.actor_of(Props(factory=lambda: Idler(got)), "idler")
            for i, (what, seconds) in enumerate([*operations, ("sleep", 20)]):
                if what == "sleep":
                    await trio.sleep(seconds)
                elif what == "death":
                    other = await system.actor_of(Props(factory=lambda: Idler([])), str(i))
                    ref.tell((what, other))
                    since = trio.current_time()
                    await settle()
                    await trio.sleep(1 / 2)
                    other.stop()
                    await settle()
                    await trio.sleep(1 / 2)
                else:
                    ref.tell((what, seconds))
                    await trio.sleep(seconds if what == "busy" else 0)
                    since = trio.current_time()
                    if what == "crash":
                        # Longer than any timeout that a former life may have left behind.
                        await trio.sleep(6)
                    timeout = {"set": seconds, "off": None, "crash": None}.get(what, timeout)
                await settle()
                while timeout is not None and since + timeout <= trio.current_time():
                    since += timeout
                    expected.append(since)
                assert got == expected

    run(scenario)


class Stirred(Actor):
    """A task of its own sets the receive timeout anew, or gives an empty stash back, while the actor itself waits."""

    def __init__(self, steps, got):
        self.steps, self.got = steps, got

    async def pre_start(self, ctx):
        ctx.spawn_task(self.stir, ctx)

    async def stir(self, ctx):
        for seconds, what, timeout in self.steps:
            await trio.sleep(seconds)
            if what == "set":
                ctx.set_receive_timeout(timeout)
            else:
                ctx.unstash()

    async def handle(self, message, ctx):
        self.got.append((trio.current_time(), message))


STEPS = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from(["set", "set", "unstash"]), st.none() | st.integers(1, 5)),
    max_size=12,
)


@given(steps=STEPS, _seed=st.random_module())
def test_what_wakes_an_actor_is_not_idleness_and_only_a_new_timeout_puts_it_off(steps, _seed):
    # A step ends at an instant that no timeout is due at.
    steps = [(seconds + 1 / 64, what, timeout) for seconds, what, timeout in steps]
    got, expected, timeout, since, now = [], [], None, 0.0, 0.0
    for seconds, what, new in [*steps, (20, "end", None)]:
        now += seconds
        while timeout is not None and since + timeout <= now:
            since += timeout
            expected.append((since, ReceiveTimeout()))
        if what == "set":
            timeout, since = new, now

    async def scenario():
        async with ActorSystem.create("t") as system:
            await system.actor_of(Props(factory=lambda: Stirred(steps, got)), "stirred")
            await trio.sleep(now)
            await settle()
            assert got == expected

    run(scenario)


@settings(max_examples=20)
@given(beats=st.integers(1, 30), kind=st.sampled_from(["rate", "delay"]), _seed=st.random_module())
def test_a_slow_actor_finds_one_beat_and_not_a_pile_of_them(beats, kind, _seed):
    got = []

    async def scenario():
        async with ActorSystem.create("t") as system:
            ref = await system.actor_of(Props(factory=lambda: Timed(got, [])), "timed")
            await ref.ask(Do("do", 0, ((kind, "x", 0, "beat"),)), timeout=1)
            await ref.ask(Do("busy", beats + 1 / 2, ()), timeout=100)
            await settle()
            assert got == [(beats + 1 / 2, "beat")]

    run(scenario)
