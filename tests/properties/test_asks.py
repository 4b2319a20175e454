"""Every question has exactly one outcome, at the instant that a model of a single server says.

Arrivals, deadlines, cancellations and the work itself are placed at fractions of a second that never coincide, so that
the model is exact whatever the schedule.
"""

import heapq

import pytest
import trio
from attrs import define, field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.actor import (
    Actor,
    ActorFailed,
    ActorStopped,
    ActorSystem,
    AskTimeout,
    DeadLetter,
    Directive,
    MailboxFull,
    OverflowStrategy,
    Props,
    Request,
    one_for_one,
)

from .kit import run, settle

SHUTDOWN = 3


class Resumable(Exception):
    pass


class Restartable(Exception):
    pass


class Refusal(Exception):
    pass


STRATEGY = one_for_one({Resumable: Directive.RESUME, Restartable: Directive.RESTART}, max_restarts=10_000)


@frozen
class Question(Request[int]):
    """Work for so long, then do one thing. ``later``: when a deferred answer is given, counted from then."""

    number: int
    at: float
    timeout: float
    work: int
    action: str
    later: float
    cancel_at: float
    is_ask: bool


ACTION = st.sampled_from(
    [
        "value",
        "value",
        "value",
        "raise",
        "resume",
        "refuse",
        "refuse and raise",
        "defer",
        "defer",
        "defer and raise",
        "quit",
    ]
)


@st.composite
def questions(draw):
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, 12), st.integers(0, 8), st.integers(0, 4), ACTION, st.integers(0, 4))
            | st.tuples(st.integers(0, 3), st.integers(2, 20), st.integers(0, 2), ACTION, st.integers(0, 4)),
            max_size=14,
        )
    )
    drawn = []
    for i, (at, timeout, work, action, later) in enumerate(rows):
        at += i / 1024
        cancels = draw(st.none() | st.none() | st.integers(0, 8))
        cancel_at = float("inf") if cancels is None else at + cancels + 1 / 4
        is_ask = draw(st.integers(0, 4)) > 0
        drawn.append(Question(i, at, timeout + 1 / 2, work, action, later + 1 / 16, cancel_at, is_ask))
    return sorted(drawn, key=lambda question: question.at)


class Server(Actor):
    def __init__(self, seen):
        self.seen = seen

    async def handle(self, question, ctx):
        self.seen.append(("begin", question.number, trio.current_time(), ctx.deadline))
        if question.action.startswith("defer"):
            slot = ctx.defer_reply()
        await trio.sleep(question.work)
        self.seen.append(("end", question.number, trio.current_time(), ctx.abandoned))
        match question.action:
            case "raise":
                raise Restartable
            case "resume":
                raise Resumable
            case "refuse":
                ctx.fail(Refusal())
            case "refuse and raise":
                ctx.fail(Refusal())
                raise Restartable
            case "quit":
                ctx.stop()
            case "defer":
                ctx.spawn_task(self.answer_later, slot, question)
            case "defer and raise":
                raise Restartable
        return question.number

    async def answer_later(self, slot, question):
        await trio.sleep(question.later)
        slot.resolve(question.number)
        slot.fail(LookupError("the first answer counts"))


@define
class Model:
    """One server, one bounded queue, on a heap of events."""

    capacity: int
    overflow: OverflowStrategy
    stop_at: float
    outcomes: dict = field(factory=dict)
    seen: list = field(factory=list)
    dead: list = field(factory=list)
    queue: list = field(factory=list)
    hand: Question | None = None
    deferred: dict = field(factory=dict)
    heap: list = field(factory=list)
    stopping: bool = False
    alive: bool = True
    order: int = 0

    def at(self, when, what, *arguments):
        self.order += 1
        heapq.heappush(self.heap, (when, self.order, what, arguments))

    def run(self, plan):
        for question in plan:
            self.at(question.at, self.arrive, question)
            if question.is_ask:
                self.at(question.at + question.timeout, self.outcome, question, "timeout")
                self.at(question.cancel_at, self.outcome, question, "cancelled")
        self.at(self.stop_at, self.stop)
        while self.heap:
            now, _, what, arguments = heapq.heappop(self.heap)
            if now < float("inf"):
                what(now, *arguments)

    def outcome(self, now, question, how):
        if question.is_ask:
            self.outcomes.setdefault(question.number, (how, now))

    def lose(self, now, question, how="stopped"):
        self.outcome(now, question, how)
        self.dead.append(question.number)

    def arrive(self, now, question):
        if not self.alive:
            self.lose(now, question)
        elif len(self.queue) < self.capacity or (self.hand is None and not self.queue):
            self.queue.append(question)
        elif self.overflow is OverflowStrategy.FAIL:
            self.outcome(now, question, "full")
        elif self.overflow is OverflowStrategy.DROP_NEW:
            self.lose(now, question, "full")
        else:
            self.lose(now, self.queue.pop(0), "full")
            self.queue.append(question)
        self.begin(now)

    def begin(self, now):
        while self.alive and self.hand is None and self.queue:
            question = self.queue.pop(0)
            if question.is_ask and question.number in self.outcomes:
                self.dead.append(question.number)
                continue
            self.hand = question
            self.seen.append(
                ("begin", question.number, now, question.at + question.timeout if question.is_ask else float("inf"))
            )
            self.at(now + question.work, self.finish, question)

    def finish(self, now, question):
        if self.hand is not question:
            return
        self.hand = None
        is_deferred = question.action.startswith("defer")
        abandoned = question.is_ask and question.number in self.outcomes and not is_deferred
        self.seen.append(("end", question.number, now, abandoned))
        if is_deferred:
            self.deferred[question.number] = question
        match question.action:
            case "value" | "quit":
                self.outcome(now, question, "value")
            case "refuse" | "refuse and raise":
                self.outcome(now, question, "refused")
            case "raise" | "resume":
                self.outcome(now, question, "failed")
            case "defer":
                self.at(now + question.later, self.answer, question)
        if question.action == "quit" or self.stopping:
            self.end(now)
        elif question.action in ("raise", "refuse and raise", "defer and raise"):
            self.drop_deferred(now)
        self.begin(now)

    def answer(self, now, question):
        if self.deferred.pop(question.number, None) is not None:
            self.outcome(now, question, "value")

    def drop_deferred(self, now):
        for question in self.deferred.values():
            self.outcome(now, question, "stopped")
        self.deferred = {}

    def stop(self, now):
        self.stopping = True
        if not self.alive:
            return
        if self.hand is None:
            self.end(now)
        else:
            self.at(now + SHUTDOWN, self.cut_off)

    def cut_off(self, now):
        if self.alive and self.hand is not None:
            self.outcome(now, self.hand, "stopped")
            self.hand = None
            self.end(now)

    def end(self, now):
        self.alive = False
        self.drop_deferred(now)
        for question in self.queue:
            self.lose(now, question)
        self.queue = []


CAUSES = {"raise": Restartable, "resume": Resumable}


async def pose(ref, question, outcomes):
    """Ask, and note how and when it ended; whatever happens twice or differently fails the test."""
    how = "cancelled"
    try:
        with trio.CancelScope(deadline=question.cancel_at):
            assert await ref.ask(question, timeout=question.timeout) == question.number
            how = "value"
    except AskTimeout as timeout:
        assert (timeout.path, timeout.seconds) == (ref.path, question.timeout)
        how = "timeout"
    except ActorStopped as stopped:
        assert stopped.path == ref.path
        how = "stopped"
    except ActorFailed as failed:
        assert failed.path == ref.path
        assert type(failed.__cause__) is CAUSES[question.action]
        how = "failed"
    except MailboxFull:
        how = "full"
    except Refusal:
        how = "refused"
    assert question.number not in outcomes
    outcomes[question.number] = (how, trio.current_time())


@settings(max_examples=300)
@given(
    plan=questions(),
    capacity=st.integers(1, 5),
    overflow=st.sampled_from(OverflowStrategy),
    stop_at=st.integers(0, 20),
    _seed=st.random_module(),
)
def test_every_ask_has_the_models_outcome_at_the_models_instant(plan, capacity, overflow, stop_at, _seed):
    model = Model(capacity, overflow, stop_at + 1 / 8)
    model.run(plan)
    seen, letters, outcomes = [], [], {}

    async def scenario():
        async with ActorSystem.create("t", supervisor_strategy=STRATEGY) as system:
            system.events.subscribe(DeadLetter, lambda letter: letters.append(letter.message.number))
            props = Props(factory=lambda: Server(seen), capacity=capacity, overflow=overflow, shutdown=SHUTDOWN)
            ref = await system.actor_of(props, "server")
            async with trio.open_nursery() as nursery:

                async def stopper():
                    await trio.sleep_until(stop_at + 1 / 8)
                    ref.stop()

                nursery.start_soon(stopper)
                for question in plan:
                    await trio.sleep_until(question.at)
                    await settle()
                    if question.is_ask:
                        nursery.start_soon(pose, ref, question, outcomes)
                    else:
                        try:
                            ref.tell(question)
                        except MailboxFull:
                            assert overflow is OverflowStrategy.FAIL
                    await settle()
                await trio.sleep_until(100)

    run(scenario)
    assert outcomes == model.outcomes
    assert seen == model.seen
    assert sorted(letters) == sorted(model.dead)


@given(timeout=st.integers(0, 3), work=st.integers(0, 3), _seed=st.random_module())
def test_a_question_whose_deadline_has_come_is_not_handled(timeout, work, _seed):
    """The deadline may coincide with the end of the handler before it: then it is over, in every schedule."""
    seen = []

    async def scenario():
        async with ActorSystem.create("t") as system, trio.open_nursery() as nursery:
            ref = await system.actor_of(Props(factory=lambda: Server(seen)), "server")
            ref.tell(Question(0, 0, 0, work, "value", 0, 0, is_ask=False))
            await settle()

            async def ask():
                question = Question(1, 0, timeout, 0, "value", 0, float("inf"), is_ask=True)
                if timeout <= work:
                    with pytest.raises(AskTimeout):
                        await ref.ask(question, timeout=timeout)
                    assert trio.current_time() == timeout
                else:
                    assert await ref.ask(question, timeout=timeout) == 1

            nursery.start_soon(ask)
        handled = [number for what, number, *_ in seen if what == "begin"]
        assert handled == ([0] if timeout <= work else [0, 1])

    run(scenario)
