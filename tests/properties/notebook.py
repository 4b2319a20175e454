"""What the simulated actors are drawn from, and the notebook in which all that happens to them is written down."""

from collections.abc import Callable
from typing import Any

import trio
from attrs import define, evolve, field, frozen

from atomr_trio.actor import (
    Actor,
    ActorError,
    ActorRef,
    ActorStopped,
    AutoShutdown,
    Backoff,
    ChildSpec,
    Directive,
    MailboxFull,
    OverflowStrategy,
    Props,
    Request,
    Restart,
    Scope,
    StreamRequest,
    SupervisorGaveUp,
    SupervisorStrategy,
    by_type,
    leaves,
)
from atomr_trio.testing._fault_plan import Odds
from atomr_trio.testing._sim import SimWorld
from atomr_trio.testing.history import (
    Answered,
    Asked,
    Born,
    Dead,
    EndBegun,
    GaveUp,
    Gone,
    Read,
    ReadEnded,
    Refused,
    Sending,
    Sent,
    StopAsked,
    Unborn,
)

ACTORS = 50
CLIENTS = 6
FAVOURITES = 5
OPERATIONS = 22
HANG = 20.0
SETTLE = 40.0
HORIZON = 1000.0


class Planned(Exception):
    """A failure of the scenario's making."""

    def __init__(self, number):
        super().__init__(number)
        self.number = number


class Resumable(Planned):
    pass


class Restartable(Planned):
    pass


class Fatal(Planned):
    pass


class Escalating(Planned):
    pass


class Refusal(Exception):
    """What a callee answers on purpose."""


FAILURES = {
    Directive.RESUME: Resumable,
    Directive.RESTART: Restartable,
    Directive.STOP: Fatal,
    Directive.ESCALATE: Escalating,
}


@frozen(eq=False)
class Work(Request[Any]):
    number: int
    deed: str
    amount: float


@frozen(eq=False)
class Flow(StreamRequest[int]):
    number: int
    deed: str
    amount: float


@frozen
class Tick:
    key: str
    token: int


DEEDS = {
    "nothing": 30,
    "nap": 8,
    "crash": 14,
    "crash in a group": 2,
    "hang": 2,
    "quit": 3,
    "stash": 9,
    "unstash": 4,
    "become": 3,
    "unbecome": 2,
    "timer": 7,
    "periodic timer": 2,
    "cancel timer": 5,
    "watch": 7,
    "unwatch": 4,
    "spawn": 4,
    "spawn soon": 2,
    "task": 4,
    "failing task": 2,
    "defer": 3,
    "never answer": 1,
    "refuse": 2,
    "idle": 2,
    "tell": 5,
    "ask": 4,
    "stop": 2,
}
POINTS = {
    "handler": Odds(crash=0.004, delay=0.02, max_delay=0.5),
    "producer": Odds(crash=0.01, delay=0.02, max_delay=0.5),
    "client": Odds(cancel=0.02, delay=0.05, max_delay=0.5),
}
OPERATIONS_OF_CLIENTS = {"tell": 30, "burst": 10, "send": 12, "ask": 30, "stream": 8, "stop": 3, "spawn": 2, "wait": 5}


@define
class Plan:
    """What an actor is, drawn once; its children are spawned anew in each incarnation."""

    restart: Restart
    significant: bool
    shutdown: float
    capacity: int
    overflow: OverflowStrategy
    stash: int
    strategy: SupervisorStrategy
    faults: dict[str, float]
    plain: bool
    soon: bool
    children: "list[Plan]" = field(factory=list)


def draw_strategy(chance):
    otherwise = chance.choice(
        [Directive.RESTART, Directive.RESTART, Directive.STOP, Directive.RESUME, Directive.ESCALATE]
    )
    decider = by_type({failure: directive for directive, failure in FAILURES.items()}, otherwise=otherwise)
    backoff = Backoff(initial=chance.choice([0.05, 0.5]), maximum=chance.choice([0.3, 2.0]), jitter=chance.random())
    return SupervisorStrategy(
        scope=chance.choice([Scope.ONE_FOR_ONE, *Scope]),
        decider=decider,
        max_restarts=chance.choice([0, 1, 2, 3, 5, 10, 20]),
        within=chance.choice([0.5, 5.0, 60.0]),
        backoff=chance.choice([None, backoff]),
        auto_shutdown=chance.choice([AutoShutdown.NEVER, AutoShutdown.NEVER, AutoShutdown.NEVER, *AutoShutdown]),
    )


def draw_plan(chance):
    rarely = chance.random() < 0.25
    return Plan(
        restart=chance.choice(list(Restart)),
        significant=chance.random() < 0.2,
        shutdown=chance.choice([0.0, 0.05, 0.5, 2.0]),
        capacity=chance.choice([1, 2, 4, 64]),
        overflow=chance.choice(list(OverflowStrategy)),
        stash=chance.choice([0, 2, 8]),
        strategy=draw_strategy(chance),
        faults={
            hook: chance.choice([0.0, 0.1, 0.3]) if rarely else 0.0
            for hook in (
                "pre_start",
                "slow start",
                "post_restart",
                "on_terminated",
                "on_failure",
                "closing",
                "slow closing",
            )
        },
        plain=chance.random() < 0.2,
        soon=chance.random() < 0.3,
    )


def draw_tree(chance):
    """Return the top-level plans of ``ACTORS`` actors."""
    top, everyone = [], []
    for _ in range(ACTORS):
        plan, parent = draw_plan(chance), None
        if len(top) > 2 or (top and chance.random() < 0.7):
            depth, parent = min((chance.choice(everyone) for _ in range(2)), key=lambda found: found[0])
        if parent is None or depth >= 5:
            top.append(plan)
            everyone.append((1, plan))
        else:
            parent.children.append(plan)
            everyone.append((depth + 1, plan))
    return top


def harmless(plan):
    """Return a plan that starts for sure, so that there is somebody to talk to."""
    return evolve(plan, faults=dict.fromkeys(plan.faults, 0.0))


def cause(failure):
    if failure is None:
        return None
    return next((leaf.number for leaf in leaves(failure) if isinstance(leaf, Planned)), type(failure).__name__)


@define(eq=False)
class Simulation:
    """Everybody's notebook: numbers for what happens, and references to all who ever lived."""

    world: SimWorld
    make: Callable[..., Actor]
    refs: dict[int, ActorRef] = field(factory=dict)
    paths: dict[str, int] = field(factory=dict)
    count: int = 0

    @property
    def chance(self):
        return self.world.random

    def number(self):
        self.count += 1
        return self.count

    def note(self, what):
        self.world.record(what)

    def begin_end(self):
        self.note(EndBegun())

    def somebody(self):
        recent = list(self.refs.items())[-80:]
        living = [found for found in recent if not found[1].is_terminated]
        if self.chance.random() < 0.5:
            # A few get most of the mail: what takes many messages to one actor would hardly happen otherwise.
            living = living[:FAVOURITES]
        return self.chance.choice(living if living and self.chance.random() < 0.9 else recent)

    def draw(self, weights):
        return self.chance.choices(list(weights), list(weights.values()))[0]

    def work(self, kind=Work):
        return kind(self.number(), self.draw(DEEDS), self.chance.uniform(0.0, 0.3))

    # Spawning.

    def spec(self, plan, path, parent, life):
        place = self.number()
        props = Props(
            factory=lambda: self.make(self, place, plan),
            capacity=plan.capacity,
            overflow=plan.overflow,
            stash_capacity=plan.stash,
            shutdown=plan.shutdown,
        )
        name = str(place)
        self.paths[f"{path}/{name}"] = place
        self.note(
            Born(
                place,
                f"{path}/{name}",
                parent,
                life,
                plan.restart,
                plan.significant,
                plan.shutdown,
                plan.capacity,
                plan.strategy,
            )
        )
        return place, ChildSpec(id=name, props=props, restart=plan.restart, significant=plan.significant)

    async def spawn(self, start, plan, path, parent, life):
        """Spawn by ``start``, which may be refused, fail, or be cancelled."""
        place, spec = self.spec(plan, path, parent, life)
        try:
            ref = start(spec)
            self.refs[place] = ref if isinstance(ref, ActorRef) else await ref
        except ActorStopped as error:
            # Of the parent: it is stopping. Of the child: it was stopped while it started.
            if not error.path.endswith(f"/{place}"):
                self.note(Unborn(place))
        except trio.Cancelled:
            self.note(StopAsked(place))
            raise
        except ActorError:
            pass

    # Sending.

    def tell(self, sender, target, ref, message):
        self.note(Sending(message.number, sender, target, "tell"))
        try:
            ref.tell(message)
        except MailboxFull:
            self.note(Refused(message.number, "full", ref.queued))
        else:
            self.note(Sent(message.number))

    async def send(self, sender, target, ref, message, timeout):
        self.note(Sending(message.number, sender, target, "send"))
        with trio.move_on_after(timeout) as scope:
            try:
                await ref.send(message)
            except trio.Cancelled:
                self.note(Refused(message.number, "cancelled"))
                raise
            self.note(Sent(message.number))
        return scope.cancelled_caught

    async def ask(self, sender, target, ref, message, timeout, patience=float("inf")):
        self.note(Sending(message.number, sender, target, "ask"))
        self.note(Asked(message.number, self.world.now + timeout))
        outcome, value = "cancelled", None
        try:
            with trio.move_on_after(patience):
                value = await ref.ask(message, timeout=timeout)
                outcome = "answer"
        except (ActorError, Refusal) as error:
            outcome, value = type(error).__name__, error.args if isinstance(error, Refusal) else None
            outcome = "answer" if isinstance(error, Refusal) else outcome
        finally:
            why = {"MailboxFull": "full", "AskCycle": "cycle"}.get(outcome)
            self.note(Refused(message.number, why) if why is not None else Sent(message.number))
            self.note(Answered(message.number, outcome, value))

    async def stream(self, sender, target, ref, message, leave_after, timeout):
        self.note(Sending(message.number, sender, target, "stream"))
        how, sent = "cancelled", True
        try:
            with trio.move_on_after(timeout):
                async with ref.ask_stream(message, capacity=2) as items:
                    count = 0
                    async for item in items:
                        self.note(Read(message.number, item))
                        count += 1
                        if count > leave_after:
                            how = "left"
                            break
                    else:
                        how = "end"
        except MailboxFull:
            how, sent = "MailboxFull", False
        except (ActorError, Refusal) as error:
            how = type(error).__name__
        finally:
            self.note(Sent(message.number) if sent else Refused(message.number, "full"))
            self.note(ReadEnded(message.number, how))

    # What the system says.

    def on_dead_letter(self, letter):
        number = getattr(letter.message, "number", None)
        if number is not None:
            self.note(Dead(number, letter.reason))

    def on_terminated(self, event):
        place = self.paths.get(event.path)
        if place is not None:
            above = event.path.rpartition("/")[0] or "/"
            self.note(Gone(place, event.reason.startswith(f"{above}: ")))

    def on_escalated(self, event):
        place = self.paths.get(event.path)
        if place is not None and isinstance(event.failure, SupervisorGaveUp):
            self.note(GaveUp(place, cause(event.failure.__cause__) or "?"))
        if event.path.count("/") == 1:
            self.begin_end()
