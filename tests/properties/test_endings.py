"""Ends that cross each other: failures while a parent closes, stops while a group is down, the order of the news."""

import trio
from attrs import define, field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.actor import (
    Actor,
    ActorEscalated,
    ActorEvent,
    ActorRestarted,
    ActorStarted,
    ActorStopped,
    ActorSystem,
    ActorTerminated,
    AskTimeout,
    ChildSpec,
    Directive,
    Props,
    ReceiveTimeout,
    Request,
    Restart,
    Scope,
    ShutdownUnderWay,
    SupervisorStrategy,
    by_type,
    escalating,
    stopping,
)

from .kit import run, settle

NAMES = "abcd"


class Broken(Exception):
    pass


class Fatal(Exception):
    pass


@frozen
class Work(Request):
    seconds: float


class Member(Actor):
    """Notes its starts and ends; closing takes it a second."""

    def __init__(self, family, name):
        self.family, self.name = family, name

    async def pre_start(self, ctx):
        self.family.log.append(("start", self.name, trio.current_time()))

    async def handle(self, message, ctx):
        raise message

    async def pre_restart(self, failure, ctx):
        await self.post_stop(ctx)

    async def post_stop(self, ctx):
        await trio.sleep(self.family.closing)
        self.family.log.append(("end", self.name, trio.current_time()))


@define
class Family:
    strategy: SupervisorStrategy
    closing: float = 1.0
    restarts: tuple = (Restart.TRANSIENT,) * 4
    log: list = field(factory=list)
    heard: list = field(factory=list)

    def props(self):
        return Props(factory=lambda: Parent(self))


class Parent(Actor):
    def __init__(self, family):
        self.family, self.supervisor_strategy = family, family.strategy

    async def pre_start(self, ctx):
        for name, restart in zip(NAMES, self.family.restarts, strict=True):
            props = Props(factory=lambda name=name: Member(self.family, name))
            ctx.watch(await ctx.start(ChildSpec(id=name, props=props, restart=restart)))

    async def on_terminated(self, terminated, ctx):
        self.family.heard.append((ctx.incarnation, terminated.ref.path[-1]))


STRATEGIES = st.builds(
    SupervisorStrategy,
    scope=st.sampled_from(Scope),
    decider=st.sampled_from(
        [by_type({Fatal: Directive.STOP}, otherwise=Directive.RESTART), lambda _: Directive.ESCALATE]
    ),
)


@settings(max_examples=60)
@given(
    strategy=STRATEGIES,
    crashes=st.lists(
        st.tuples(st.integers(0, 15), st.sampled_from(NAMES), st.sampled_from([Broken, Fatal])), max_size=6
    ),
    _seed=st.random_module(),
)
def test_nothing_that_fails_while_its_parent_stops_is_restarted_or_escalated(strategy, crashes, _seed):
    family = Family(strategy)

    async def scenario():
        async with ActorSystem.create("t") as system:
            ref = await system.actor_of(family.props(), "parent")
            refs = {name: system.lookup(f"/parent/{name}") for name in NAMES}
            family.log.clear()
            ref.stop()
            async with trio.open_nursery() as nursery:

                async def crash(after, name, failure):
                    await trio.sleep(after / 4 + 1 / 8)
                    refs[name].tell(failure())

                for each in crashes:
                    nursery.start_soon(crash, *each)
            await ref.wait_terminated()
            ends = [name for what, name, _ in family.log if what == "end"]
            assert len(family.log) == 4
            assert sorted(ends) == list(NAMES)
            # Who failed closes while others are closing; the rest goes one by one, the youngest first.
            crashed = {name for _, name, _ in crashes}
            assert [name for name in ends if name not in crashed] == sorted(set(NAMES) - crashed, reverse=True)

    run(scenario)


@settings(max_examples=80)
@given(
    scope=st.sampled_from([Scope.ONE_FOR_ALL, Scope.REST_FOR_ONE]),
    restarts=st.tuples(*[st.sampled_from([Restart.TRANSIENT, Restart.PERMANENT, Restart.TEMPORARY])] * 4),
    first=st.sampled_from(NAMES),
    stopped=st.none() | st.sampled_from(NAMES),
    stopped_at=st.integers(0, 4),
    _seed=st.random_module(),
)
def test_a_group_comes_up_without_those_that_are_gone(scope, restarts, first, stopped, stopped_at, _seed):
    """Whenever one of it is stopped on the way down; a temporary one does not come back."""
    family = Family(SupervisorStrategy(scope=scope, max_restarts=100), restarts=restarts)

    async def scenario():
        async with ActorSystem.create("t") as system:
            await system.actor_of(family.props(), "parent")
            refs = {name: system.lookup(f"/parent/{name}") for name in NAMES}
            family.log.clear()
            refs[first].tell(Broken())
            if stopped is not None:
                await trio.sleep(stopped_at + 1 / 2)
                refs[stopped].stop()
            await trio.sleep(20)
            kind = dict(zip(NAMES, restarts, strict=True))
            group = NAMES if scope is Scope.ONE_FOR_ALL else NAMES[NAMES.index(first) :]
            if kind[first] is Restart.TEMPORARY:
                group, gone = first, {first}
            else:
                gone = {name for name in group if kind[name] is Restart.TEMPORARY}
            gone |= {stopped} - {None}
            ends = [name for what, name, _ in family.log if what == "end"]
            starts = [name for what, name, _ in family.log if what == "start"]
            # The first one closes at once, and the others meanwhile, the youngest first.
            others = [name for name in reversed(group) if name not in (first, stopped)]
            assert [name for name in ends if name not in (first, stopped)] == others
            # A stop that comes when the group is up again ends a life that had begun.
            assert [name for name in starts if name != stopped] == [name for name in group if name not in gone]
            assert {name for name in NAMES if refs[name].is_terminated} == gone

    run(scenario)


class Top(Actor):
    def __init__(self, family, directive):
        self.family = family
        self.supervisor_strategy = SupervisorStrategy(decider=lambda _: directive)

    async def pre_start(self, ctx):
        await ctx.spawn(self.family.props(), "parent")


@settings(max_examples=40)
@given(
    directive=st.sampled_from([Directive.RESTART, Directive.STOP, Directive.ESCALATE, Directive.RESUME]),
    name=st.sampled_from(NAMES),
    _seed=st.random_module(),
)
def test_an_escalation_is_told_level_by_level_and_before_the_death(directive, name, _seed):
    """A supervisor fails with what was escalated to it, before it could react to the end of its child."""
    family, told = Family(escalating(), closing=0), []

    async def scenario():
        async with ActorSystem.create("t", supervisor_strategy=stopping()) as system:
            await system.actor_of(Props(factory=lambda: Top(family, directive)), "top")
            system.events.subscribe(ActorEvent, told.append)
            system.lookup(f"/top/parent/{name}").tell(Broken())
            await settle()
            assert [incarnation for incarnation, who in family.heard if who == name] == (
                []
                if directive in (Directive.STOP, Directive.ESCALATE)
                else [2 if directive is Directive.RESTART else 1]
            )
            told_before = list(told)
        child, parent, top = f"/top/parent/{name}", "/top/parent", "/top"
        others = [f"/top/parent/{other}" for other in reversed(NAMES) if other != name]
        expected = [(ActorEscalated, child), (ActorTerminated, child)]
        if directive is not Directive.RESUME:
            expected += [(ActorTerminated, other) for other in others]
        if directive is Directive.RESTART:
            expected += [(ActorRestarted, parent)]
            expected += [(ActorStarted, f"/top/parent/{each}") for each in NAMES] + [(ActorStarted, parent)]
        if directive is Directive.STOP:
            expected += [(ActorTerminated, parent)]
        if directive is Directive.ESCALATE:
            expected += [(ActorEscalated, parent), (ActorTerminated, parent), (ActorTerminated, top)]
        assert [(type(event), event.path) for event in told_before] == expected

    run(scenario)


class Busy(Actor):
    def __init__(self, notes):
        self.notes = notes

    async def handle(self, message, ctx):
        match message:
            case ("timers", delays):
                for number, delay in enumerate(delays):
                    ctx.timers.start_once(number, ("beat", delay), delay)
            case ("watch", refs):
                for ref in refs:
                    ctx.watch(ref)
            case "work":
                await trio.sleep(100)
            case note:
                self.notes.append(note)

    async def on_terminated(self, terminated, ctx):
        self.notes.append(("death", terminated.ref.path[1:]))


@given(
    delays=st.lists(st.integers(1, 20), max_size=5, unique=True),
    deaths=st.lists(st.integers(1, 20), max_size=5, unique=True),
    _seed=st.random_module(),
)
def test_a_busy_actor_gets_its_news_in_the_order_in_which_it_happened(delays, deaths, _seed):
    notes = []

    async def scenario():
        async with ActorSystem.create("t", supervisor_strategy=stopping()) as system:
            ref = await system.actor_of(Props(factory=lambda: Busy(notes)), "busy")
            others = {when: await system.actor_of(Props(factory=lambda: Busy([])), str(when)) for when in deaths}
            ref.tell(("timers", delays))
            ref.tell(("watch", list(others.values())))
            ref.tell("work")
            for when in sorted(deaths):
                await trio.sleep_until(when + 1 / 2)
                others[when].stop()
            await trio.sleep(200)
            expected = [(when, ("beat", when)) for when in delays] + [
                (when + 1 / 2, ("death", str(when))) for when in deaths
            ]
            assert notes == [note for _, note in sorted(expected)]

    run(scenario)


class Sleeper(Actor):
    def __init__(self, notes):
        self.notes = notes

    async def handle(self, message, ctx):
        if isinstance(message, tuple):
            timeout, refs = message
            ctx.set_receive_timeout(timeout)
            for ref in refs:
                ctx.watch(ref)
        else:
            self.notes.append((type(message), trio.current_time()))


@given(
    timeout=st.integers(1, 6),
    deaths=st.lists(st.integers(0, 20), max_size=4),
    mail=st.lists(st.integers(0, 20), max_size=3, unique=True),
    _seed=st.random_module(),
)
def test_news_of_a_death_is_no_message_and_does_not_put_off_the_receive_timeout(timeout, deaths, mail, _seed):
    notes = []

    async def scenario():
        async with ActorSystem.create("t", supervisor_strategy=stopping()) as system:
            ref = await system.actor_of(Props(factory=lambda: Sleeper(notes)), "sleeper")
            others = [await system.actor_of(Props(factory=lambda: Busy([])), str(i)) for i in range(len(deaths))]
            ref.tell((timeout, others))
            happenings = [(when + 1 / 4, others[i].stop) for i, when in enumerate(deaths)]
            happenings += [(when + 1 / 2, lambda: ref.tell("mail")) for when in mail]
            for when, happen in sorted(happenings, key=lambda each: each[0]):
                await trio.sleep_until(when)
                happen()
            await trio.sleep_until(30 + 3 / 4)
            expected, last = [], 0.0
            for when in (*sorted(mail), 31):
                while last + timeout <= min(when + 1 / 2, 30 + 3 / 4):
                    last += timeout
                    expected.append((ReceiveTimeout, last))
                if when < 31:
                    last = when + 1 / 2
                    expected.append((str, last))
            assert notes == expected

    run(scenario)


class Worker(Actor):
    async def handle(self, message, ctx):
        if isinstance(message, Work):
            await trio.sleep(message.seconds)
            return message.seconds
        raise message


@given(
    seconds=st.integers(1, 12),
    before=st.integers(0, 1),
    end_at=st.integers(0, 6),
    shutdown=st.integers(0, 4),
    how=st.sampled_from(["stop", "sibling", "leave", "nothing"]),
    _seed=st.random_module(),
)
def test_a_handler_that_is_cut_off_fails_its_question_then_and_there(seconds, before, end_at, shutdown, how, _seed):
    """Also behind a question that was answered, by a stop as well as for a sibling's sake."""
    outcomes = []
    end_at += 1 / 2

    async def scenario():
        strategy = SupervisorStrategy(scope=Scope.ONE_FOR_ALL)
        async with (
            trio.open_nursery() as nursery,
            ActorSystem.create("t", supervisor_strategy=strategy) as system,
        ):
            sibling = await system.actor_of(Props(factory=Worker), "sibling")
            worker = await system.actor_of(Props(factory=Worker, shutdown=shutdown), "worker")
            if before:
                assert await worker.ask(Work(0), timeout=1) == 0

            async def ask():
                try:
                    answer = await worker.ask(Work(seconds), timeout=40)
                except ActorStopped:
                    answer = "stopped"
                outcomes.append((answer, trio.current_time()))

            nursery.start_soon(ask)
            await trio.sleep_until(end_at)
            match how:
                case "stop":
                    worker.stop()
                case "sibling":
                    sibling.tell(Broken())
            if how != "leave":
                await trio.sleep_until(30)
        limit = end_at + shutdown if how != "nothing" else 100
        assert outcomes == [(seconds, seconds) if seconds < limit else ("stopped", limit)]

    run(scenario)


class Inquirer(Actor):
    """Asks its elder sibling for the last time when it is closed."""

    def __init__(self, outcomes, elder, timeout):
        self.outcomes, self.elder, self.timeout = outcomes, elder, timeout

    async def post_stop(self, ctx):
        began = trio.current_time()
        try:
            answer = await self.elder.ask(Work(3), timeout=self.timeout)
        except AskTimeout:
            answer = "late"
        self.outcomes.append((answer, trio.current_time() - began))


@given(timeout=st.sampled_from([1, 2, 4, 5]), cancels=st.booleans(), _seed=st.random_module())
def test_an_actor_that_closes_can_ask_until_its_deadline(timeout, cancels, _seed):
    outcomes = []

    async def scenario():
        with trio.CancelScope() as scope:
            async with ActorSystem.create("t") as system:
                elder = await system.actor_of(Props(factory=Worker), "elder")
                inquirer = Props(factory=lambda: Inquirer(outcomes, elder, timeout), shutdown=10)
                await system.actor_of(inquirer, "inquirer")
                if cancels:
                    scope.cancel(reason="test")
        assert outcomes == [(3, 3) if timeout > 3 else ("late", timeout)]

    run(scenario)


TASKS = st.lists(
    st.tuples(
        st.sampled_from(["unbind", "drain", "close"]),
        st.sampled_from(["well", "raises", "overruns", "is taken out", "adds to its own phase", "adds to the next"]),
    ),
    max_size=6,
)


@given(tasks=TASKS, _seed=st.random_module())
def test_a_shutdown_lists_what_went_wrong_and_refuses_whoever_comes_too_late(tasks, _seed):
    ran, refused, expected, faults = [], [], [], []
    following = {"unbind": "drain", "drain": "close"}

    async def scenario():
        async with ActorSystem.create("t") as system:

            def task(number, phase, how):
                async def work():
                    ran.append(number)
                    match how:
                        case "raises":
                            raise Broken
                        case "overruns":
                            await trio.sleep_forever()
                        case "adds to its own phase" | "adds to the next":
                            other = phase if "own" in how else following.get(phase, phase)
                            try:
                                system.shutdown.add_task(other, f"more of {number}", task(-number, phase, "well"))
                            except ShutdownUnderWay:
                                refused.append(number)

                return work

            for number, (phase, how) in enumerate(tasks, 1):
                entered = system.shutdown.add_task(phase, str(number), task(number, phase, how), timeout=1)
                if how == "is taken out":
                    system.shutdown.remove_task(entered)
                else:
                    expected.append(number)
                    if how in ("raises", "overruns"):
                        faults.append((phase, str(number), Broken if how == "raises" else type(None)))
                    if how == "adds to the next" and phase in following:
                        expected.append(-number)
        late = [
            n
            for n, (phase, how) in enumerate(tasks, 1)
            if "own" in how or (how, phase) == ("adds to the next", "close")
        ]
        assert sorted(refused) == late
        assert sorted(ran) == sorted(expected)
        found = [(fault.phase, fault.task, type(fault.failure)) for fault in system.shutdown.faults]
        assert sorted(found, key=str) == sorted(faults, key=str)

    run(scenario)


class Quitter(Actor):
    async def handle(self, message, ctx):
        for wish, pause in message:
            await trio.sleep(pause)
            if wish:
                ctx.stop("its own wish")


class Keeper(Actor):
    def __init__(self, restart):
        self.restart = restart

    async def pre_start(self, ctx):
        await ctx.start(ChildSpec(id="child", props=Props(factory=Quitter, shutdown=100), restart=self.restart))


@given(
    restart=st.sampled_from(Restart),
    wishes=st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=4),
    stops=st.lists(st.integers(0, 12), max_size=2),
    _seed=st.random_module(),
)
def test_a_stop_from_outside_overrules_whatever_a_child_wishes_itself(restart, wishes, stops, _seed):
    """A permanent child starts again after a stop of its own, and after no other."""
    reasons = []

    async def scenario():
        async with ActorSystem.create("t") as system:
            await system.actor_of(Props(factory=lambda: Keeper(restart)), "keeper")
            system.events.subscribe(ActorTerminated, lambda event: reasons.append(event.reason))
            child = system.lookup("/keeper/child")
            child.tell(wishes)
            for when in sorted(stops):
                await trio.sleep_until(when + 1 / 2)
                child.stop("from outside")
            await trio.sleep_until(50)
            own = [wish for wish, _ in wishes]
            end = sum(pause for _, pause in wishes)
            # Its own wish is fulfilled when the handler is through, unless the other one has come by then.
            stopped_first = True in own and restart is not Restart.PERMANENT
            is_gone = stopped_first or bool(stops)
            assert child.is_terminated is is_gone
            if is_gone and not stopped_first:
                assert reasons == ["from outside"]
            elif is_gone:
                assert reasons[0] == ("from outside" if any(when + 1 / 2 < end for when in stops) else "its own wish")
            reasons.clear()

    run(scenario)
