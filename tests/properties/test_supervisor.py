"""Supervision against an independent model: who lives, who restarted how often, and in which order everything went.

One supervisor with four children of generated restart types, under each scope, through generated crashes, stops and
pauses. The model is OTP's rules written down a second time, over plain lists.
"""

import trio
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.actor import (
    Actor,
    ActorSystem,
    ChildSpec,
    Directive,
    Props,
    Request,
    Restart,
    Scope,
    SupervisorStrategy,
    by_type,
    stopping,
)

NAMES = "abcd"
WINDOW, MAX_RESTARTS = 60, 3


class Resumable(Exception):
    pass


class Fatal(Exception):
    pass


DECIDER = by_type({Resumable: Directive.RESUME, Fatal: Directive.STOP}, otherwise=Directive.RESTART)


class Children(Request):
    pass


class Child(Actor):
    def __init__(self, name, events):
        self.name, self.events = name, events

    async def pre_start(self, ctx):
        self.events.append(("start", self.name))

    async def handle(self, message, ctx):
        if isinstance(message, Exception):
            raise message
        ctx.stop()

    async def pre_restart(self, failure, ctx):
        self.events.append(("end", self.name))

    async def post_stop(self, ctx):
        self.events.append(("end", self.name))


class Parent(Actor):
    def __init__(self, scope, restarts, events):
        self.supervisor_strategy = SupervisorStrategy(
            scope=scope, decider=DECIDER, max_restarts=MAX_RESTARTS, within=WINDOW
        )
        self.restarts, self.events = restarts, events

    async def pre_start(self, ctx):
        for name, restart in zip(NAMES, self.restarts, strict=True):
            props = Props(factory=lambda name=name: Child(name, self.events))
            await ctx.start(ChildSpec(id=name, props=props, restart=restart))

    async def handle(self, message, ctx):
        return {ref.path[-1]: ref for ref in ctx.children}


@define
class Model:
    """OTP, over lists. ``expected`` are the events that an operation must cause, in order."""

    scope: Scope
    restart: dict
    alive: list = field(factory=lambda: list(NAMES))
    window: list = field(factory=list)
    now: float = 0.0
    gave_up: bool = False
    expected: list = field(factory=list)

    def group(self, name):
        if self.scope is Scope.ONE_FOR_ALL:
            return list(self.alive)
        return self.alive[self.alive.index(name) :] if self.scope is Scope.REST_FOR_ONE else [name]

    def end(self, names):
        self.expected += [("end", name) for name in names]

    def stop(self, name):
        if name in self.alive:
            self.alive.remove(name)
            self.end([name])

    def take_down(self, name):
        # The failed one is down already; the others follow from the youngest on.
        group = self.group(name)
        self.end([name, *(other for other in reversed(group) if other != name)])
        return group

    def crash(self, name, directive):
        if name not in self.alive or directive is Directive.RESUME:
            return
        if directive is Directive.STOP:
            gone = self.take_down(name)
            self.alive = [other for other in self.alive if other not in gone]
        elif self.restart[name] is Restart.TEMPORARY:
            self.stop(name)
        else:
            self.restart_group(name)

    def quit(self, name):
        if name in self.alive and self.restart[name] is Restart.PERMANENT:
            self.restart_group(name)
        else:
            self.stop(name)

    def restart_group(self, name):
        self.window = [at for at in self.window if self.now - at < WINDOW]
        if len(self.window) >= MAX_RESTARTS:
            self.end([name, *(other for other in reversed(self.alive) if other != name)])
            self.alive, self.gave_up = [], True
            return
        self.window.append(self.now)
        group = self.take_down(name)
        temporary = [other for other in group if self.restart[other] is Restart.TEMPORARY and other != name]
        self.alive = [other for other in self.alive if other not in temporary]
        self.expected += [("start", other) for other in group if other not in temporary]


NAME = st.sampled_from(NAMES)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("crash"), NAME, st.sampled_from([ValueError, Resumable, Fatal])),
        st.tuples(st.just("quit"), NAME),
        st.tuples(st.just("stop"), NAME),
        st.tuples(st.just("advance"), st.integers(1, 40)),
    ),
    max_size=14,
)


@settings(max_examples=150)
@given(
    scope=st.sampled_from(Scope),
    restarts=st.tuples(*[st.sampled_from(Restart)] * 4),
    operations=OPERATIONS,
    _seed=st.random_module(),
)
def test_every_history_is_the_models(scope, restarts, operations, _seed):
    events = []
    model = Model(scope, dict(zip(NAMES, restarts, strict=True)))

    async def scenario():
        async with ActorSystem.create("t", supervisor_strategy=stopping()) as system:
            parent = await system.actor_of(Props(factory=lambda: Parent(scope, restarts, events)), "parent")
            assert events == [("start", name) for name in NAMES]
            refs = await parent.ask(Children(), timeout=1)
            for what, *arguments in operations:
                events.clear()
                model.expected.clear()
                match what, arguments:
                    case "advance", [seconds]:
                        await trio.sleep(seconds)
                        model.now += seconds
                    case "crash", [name, error]:
                        model.crash(name, DECIDER(error()))
                        refs[name].tell(error())
                    case "quit", [name]:
                        model.quit(name)
                        refs[name].tell("quit")
                    case "stop", [name]:
                        model.stop(name)
                        refs[name].stop()
                await trio.testing.wait_all_tasks_blocked()
                assert events == model.expected
                assert [name for name in NAMES if not refs[name].is_terminated] == model.alive
                assert parent.is_terminated is model.gave_up
                if model.gave_up:
                    return
            events.clear()
        assert events == [("end", name) for name in reversed(model.alive)]

    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))
