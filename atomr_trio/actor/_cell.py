"""The cell: one task from spawn to final stop, and in it one incarnation of the actor after the other.

The cell owns the mailbox, the name and the watchers; the incarnation owns the instance, the children and the
background tasks. A failure is caught here and handed to the parent's strategy; nothing but cancellation and the
interpreter's own exits ever leaves ``run``.
"""

import logging
import math
from collections.abc import Awaitable, Callable
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import trio

from ._actor import Actor, ChildSpec
from ._context import Context
from ._errors import ActorFailed, ActorStopped
from ._events import ActorEscalated, ActorRestarted, ActorStarted, ActorTerminated
from ._failures import attempt, describe, purified
from ._family import Family
from ._hand import Hand
from ._inbox import IDLE, Inbox
from ._mailbox import EMPTY, Mailbox
from ._ref import ActorRef
from ._signals import Escalated, ReceiveTimeout, Regroup, Signal, Stop, TaskFailed, Terminated
from ._supervision import Directive, Restart
from ._timers import TimerFired, Timers
from ._verdict import Verdict
from ._watch import Watches

if TYPE_CHECKING:
    from ._system import ActorSystem

M = TypeVar("M")
N = TypeVar("N")
Behaviour = Callable[[Any, Context[Any]], Any]

__all__ = ["Cell"]

log = logging.getLogger("atomr_trio.actor")

MESSAGES_PER_TURN = 64
"""A busy actor yields to the scheduler after this many messages."""

CANCELLED = Verdict(Directive.STOP, "cancelled from above")


class Cell(Generic[M]):
    """One place in the tree."""

    def __init__(self, system: "ActorSystem", path: str, spec: ChildSpec[M], parent: "Cell[Any] | None") -> None:
        self.system = system
        self.path = path
        self.spec = spec
        self.props = props = spec.props
        self.parent = parent
        self.ref: ActorRef[M] = ActorRef(self)
        mailbox = Mailbox(path, props.capacity, props.overflow, system.dead_letters)
        self.inbox = Inbox(path, mailbox)
        self.hand = Hand(mailbox, props.stash_capacity)
        self.children: dict[str, Cell[Any]] = {}
        self.state = "new"
        self.incarnation = 0
        self.last_failure: Exception | None = None
        self.was_started = False
        self.settled = trio.Event()
        self._up = trio.Event()
        self._down = trio.Event()
        self.terminated = trio.Event()
        self.end = CANCELLED
        self._actor: Actor[M] | None = None
        self._family: Family | None = None
        self._tasks: trio.Nursery | None = None
        self._scope: trio.CancelScope | None = None
        self._waiting: trio.CancelScope | None = None
        self._stop: Stop | None = None
        self._regrouped: Verdict | None = None
        self._restarted_after: Exception | None = None
        self.spawner_waits = False
        self.timers: Timers | None = None
        self._behaviours: list[Behaviour] = []
        self.watches = Watches(self)

    # Called from anywhere; nothing here waits.

    def deliver(self, item: Any) -> None:
        """Put a message or an ``Ask`` into the mailbox."""
        self.inbox.mailbox.put(item)

    async def deliver_when_room(self, item: Any) -> None:
        """Put a message into the mailbox, waiting for room."""
        await self.inbox.mailbox.put_when_room(item)

    def signal(self, signal: Signal) -> None:
        """Queue a system message and wake the cell if it is idle."""
        if not self.terminated.is_set():
            self.inbox.signal(signal)

    def stop(self, reason: str, *, by_itself: bool = False) -> None:
        """Ask for a stop; the message in hand gets the shutdown deadline, a start or a pause in progress gets none."""
        # A stop from outside overrules one of the actor's own, which a permanent child would not be granted.
        overruled = self._stop is None or (self._stop.by_itself and not by_itself)
        if not overruled or self.terminated.is_set():
            return
        self._stop = Stop(reason, by_itself)
        self._interrupt(reason)
        self.signal(self._stop)

    def regroup(self, verdict: Verdict) -> None:
        """End this incarnation as a sibling's failure demands; what follows is the verdict."""
        if self.spec.restart is Restart.TEMPORARY or verdict.directive is Directive.STOP:
            self.stop(f"a sibling {verdict.reason}")
        elif not self._down.is_set():
            self._regrouped = verdict
            self._interrupt("a sibling failed")
            self.signal(Regroup(verdict))

    async def wait_down(self) -> None:
        """Wait until the present incarnation is over."""
        await self._down.wait()

    async def wait_up(self) -> bool:
        """Wait until the next incarnation runs (true) or has failed to start, or the cell is gone (false)."""
        await self._up.wait()
        return self.state == "running"

    def _interrupt(self, reason: str) -> None:
        if self._waiting is not None:
            self._waiting.cancel(reason=reason)
        if self._scope is not None:
            if self.state == "starting":
                self._scope.cancel(reason=reason)
            self._scope.deadline = trio.current_time() + self.props.shutdown

    # Called by the context of a living incarnation.

    def spawn_soon(self, spec: ChildSpec[N], incarnation: int) -> ActorRef[N]:
        """Start a child without waiting for it."""
        return self._adopt(spec, incarnation).ref

    async def spawn(self, spec: ChildSpec[N], incarnation: int) -> ActorRef[N]:
        """Start a child and wait for its first start."""
        child = self._adopt(spec, incarnation)
        child.spawner_waits = True
        try:
            await child.settled.wait()
        except trio.Cancelled:
            child.stop("its spawner was cancelled")
            raise
        if child.was_started:
            return child.ref
        if child.last_failure is not None:
            raise ActorFailed(child.path) from child.last_failure
        raise ActorStopped(child.path)

    def _adopt(self, spec: ChildSpec[N], incarnation: int) -> "Cell[N]":
        if self._family is None or incarnation != self.incarnation:
            raise ActorStopped(self.path)
        child = Cell(self.system, f"{self.path.rstrip('/')}/{spec.id}", spec, self)
        self._family.adopt(spec.id, child)
        return child

    def spawn_task(
        self, fn: Callable[..., Awaitable[object]], args: tuple[object, ...], name: str | None, incarnation: int
    ) -> None:
        """Run a background task of this incarnation."""
        if self._tasks is None or incarnation != self.incarnation:
            raise ActorStopped(self.path)
        label = f"{self.path} {name or getattr(fn, '__name__', 'task')}"
        self._tasks.start_soon(self._background, fn, args, name=label)

    async def _background(self, fn: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        try:
            await attempt(fn, *args)
        except Exception as failure:
            self.signal(TaskFailed(failure))

    def on_terminated_call(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback``, which must not raise, once this cell is gone; returns how to undo it."""
        return self.watches.call_afterwards(callback)

    def stream(self, fn: Callable[..., Awaitable[object]], args: tuple[object, ...], incarnation: int) -> None:
        """Answer the stream request in hand from a background task."""
        sink = self.hand.take_sink(self.path)
        self.spawn_task(sink.produce, (fn, args), f"stream {getattr(fn, '__name__', '')}", incarnation)

    def unstash(self, count: int | None) -> None:
        """Have stashed messages handled next, before any other mail."""
        self.inbox.give_back(self.hand.unstash(count))

    def become(self, behaviour: "Behaviour | None") -> None:
        """Let a behaviour handle messages from the next one on; ``None`` goes back to the one before."""
        if behaviour is not None:
            self._behaviours.append(behaviour)
        elif self._behaviours:
            self._behaviours.pop()

    # The cell's own task.

    async def run(self) -> None:
        """Live through all incarnations."""
        try:
            while (await self._live()).directive is Directive.RESTART and await self._pause():
                log.info("restarting %s", self.path)
                if self.end.failure is not None:
                    self.system.events.publish(ActorRestarted(self.path, self.end.failure))
        finally:
            self._terminate()

    async def _pause(self) -> bool:
        """Wait for the turn to start again; returns false when a stop came instead."""
        self.state = "waiting"
        self._up = trio.Event()
        with trio.CancelScope() as self._waiting:
            # Checked here and not before: a stop that comes between the two would be lost.
            if self._stop is None:
                await trio.sleep(self.end.delay)
                if self.end.gate is not None:
                    await self.end.gate.wait()
        self._waiting = None
        if self._stop is not None:
            self.end = Verdict(Directive.STOP, self._stop.reason, self.end.failure)
        return self._stop is None

    async def _live(self) -> Verdict:
        """Run one incarnation: start, pump, stop children, cancel tasks, call the closing hook."""
        self.incarnation += 1
        self.end = CANCELLED
        self._down = trio.Event()
        ctx = Context(self, self.incarnation)
        try:
            async with trio.open_nursery() as self._tasks:
                self._family = Family(self.path, self.children, self._tasks, self.system.random)
                try:
                    self.end = await self._work(ctx)
                finally:
                    self.state = "stopping"
                    with trio.CancelScope(shield=True):
                        await self._family.stop_all(f"{self.path}: {self.end.reason}")
                    self._tasks.cancel_scope.cancel(reason=f"{self.path}: {self.end.reason}")
        finally:
            await self._close(ctx)
            self._up.set()
            self._down.set()
        return self.end

    async def _work(self, ctx: Context[M]) -> Verdict:
        """Start the actor and pump its mailbox until a verdict falls."""
        self._scope = trio.CancelScope()
        with self._scope:
            try:
                if self._stop is not None:
                    return Verdict(Directive.STOP, self._stop.reason)
                self.state = "starting"
                await self._start(ctx)
            except Exception as failure:
                return self._judge(failure)
            self.state = "running"
            self.was_started = True
            self.settled.set()
            self._up.set()
            self.system.events.publish(ActorStarted(self.path, self.incarnation))
            return await self._pump(ctx)
        # Only `_interrupt` ends this scope: a start was cut short, or a handler overran its deadline.
        if self._stop is None and self._regrouped is not None:
            return self._regrouped
        return Verdict(Directive.STOP, self._stop.reason if self._stop is not None else "stopped")

    async def _start(self, ctx: Context[M]) -> None:
        self._behaviours = []
        self.inbox.idle_timeout = math.inf
        self.timers = Timers(partial(self._spawn_timer, self.incarnation), self.signal)
        self._actor = self.props.factory()
        await attempt(self._actor.pre_start, ctx)
        after, self._restarted_after = self._restarted_after, None
        if after is not None:
            await attempt(self._actor.post_restart, after, ctx)

    def _spawn_timer(self, incarnation: int, fn: Callable[..., Awaitable[object]], *args: object) -> None:
        self.spawn_task(fn, args, "timer", incarnation)

    async def _pump(self, ctx: Context[M]) -> Verdict:
        actor = self._actor
        assert actor is not None
        inbox, handled = self.inbox, 0
        inbox.not_idle()
        while True:
            while inbox.signals:
                verdict = await self._obey(inbox.signals.popleft(), actor, ctx)
                if verdict is not None:
                    return verdict
            item = inbox.next_nowait()
            if item is EMPTY:
                handled = 0
                item = await inbox.park()
            if item is not EMPTY:
                verdict = await self._handle(item, actor, ctx)
                if verdict is not None:
                    return verdict
                handled += 1
            if handled >= MESSAGES_PER_TURN:
                handled = 0
                await trio.lowlevel.checkpoint()

    async def _handle(self, item: Any, actor: Actor[M], ctx: Context[M]) -> Verdict | None:
        message = self.hand.take(ReceiveTimeout() if item is IDLE else item)
        if message is EMPTY:
            return None
        handle = self._behaviours[-1] if self._behaviours else actor.handle
        try:
            # A plain function may handle messages too: what it returns is then the answer itself.
            answer: Any = handle(message, ctx)
            if type(answer) is CoroutineType or isinstance(answer, Awaitable):
                answer = await cast("Awaitable[Any]", answer)
        except Exception as failure:
            self.hand.fail(self.path, failure)
            return self._judge_running(failure)
        except BaseExceptionGroup as group:
            raise purified(group) from None
        self.hand.answer(answer)
        if self.inbox.idle_timeout != math.inf:
            self.inbox.not_idle()
        return None

    async def _obey(self, signal: Signal, actor: Actor[M], ctx: Context[M]) -> Verdict | None:
        match signal:
            case Stop():
                return self._obey_stop(self._stop or signal)
            case Regroup(verdict):
                return verdict
            case TaskFailed(failure) | Escalated(failure):
                return self._judge_running(failure)
            case TimerFired():
                accepted = self.timers is not None and self.timers.accept(signal)
                return await self._handle(signal.message, actor, ctx) if accepted else None
            case Terminated():
                return await self._tell_of_death(signal, actor, ctx)

    async def _tell_of_death(self, notice: Terminated, actor: Actor[M], ctx: Context[M]) -> Verdict | None:
        if not self.watches.accept(notice):
            return None
        try:
            await attempt(actor.on_terminated, notice, ctx)
        except Exception as failure:
            return self._judge_running(failure)
        return None

    def _obey_stop(self, stop: Stop) -> Verdict:
        if stop.by_itself and self.spec.restart is Restart.PERMANENT and self.parent is not None:
            verdict = self.parent.judge_ended_child(self, stop.reason)
            if verdict.directive is not Directive.STOP:
                self._stop = None
            return verdict
        return Verdict(Directive.STOP, stop.reason)

    def _judge_running(self, failure: Exception) -> Verdict | None:
        verdict = self._judge(failure)
        return None if verdict.directive is Directive.RESUME else verdict

    def _judge(self, failure: Exception) -> Verdict:
        """Ask the parent what to do. A failure during a stop is logged and changes nothing."""
        self.last_failure = failure
        if self._stop is not None:
            log.error("%s failed while stopping", self.path, exc_info=failure)
            return Verdict(Directive.STOP, self._stop.reason, failure)
        if self._regrouped is not None:
            return self._regrouped
        if self.spawner_waits and not self.was_started:
            return Verdict(Directive.STOP, "failed to start", failure)
        if self.parent is None:
            return Verdict(Directive.ESCALATE, "escalated", failure, failure)
        verdict = self.parent.judge_child(self, failure)
        if verdict.directive is Directive.RESUME and self.state == "starting":
            return Verdict(Directive.STOP, "failed to start", failure)
        return verdict

    def judge_child(self, child: "Cell[Any]", failure: Exception) -> Verdict:
        """Decide, as the parent, about a child's failure."""
        if self._family is None or self._actor is None:
            return Verdict(Directive.STOP, "its parent is stopping", failure)
        strategy = self._actor.supervisor_strategy
        verdict = self._family.judge(strategy, child, failure, trio.current_time())
        mild = verdict.directive in (Directive.RESUME, Directive.RESTART)
        said = (child.path, verdict.directive.name.lower(), describe(failure))
        log.warning("%s failed, %s: %s", *said, exc_info=None if mild else failure)
        return verdict

    def judge_ended_child(self, child: "Cell[Any]", reason: str) -> Verdict:
        """Decide, as the parent, about a permanent child that stopped itself."""
        if self._family is None or self._actor is None:
            return Verdict(Directive.STOP, reason)
        return self._family.restart_ended(self._actor.supervisor_strategy, child, reason, trio.current_time())

    def child_gone(self, child: "Cell[Any]") -> None:
        """Take note, as the parent, that a child has stopped for good."""
        self.children.pop(child.spec.id, None)
        if self._family is None or self._actor is None:
            return
        self._family.forget(child)
        others = (cell.spec.significant for cell in self.children.values())
        if self._actor.supervisor_strategy.done(child.spec.significant, others):
            self.stop("its significant children have stopped", by_itself=True)

    async def _close(self, ctx: Context[M]) -> None:
        """End the incarnation: fail what still waits on it, and run the closing hook within its deadline."""
        self._tasks = self._family = self._scope = self.timers = None
        self.hand.close(self.path)
        # What its tasks, children and timers still had to say does not concern the next incarnation.
        self.inbox.drop_signals(lambda signal: not isinstance(signal, Stop | Terminated))
        self._regrouped = None
        actor, self._actor = self._actor, None
        if actor is None:
            return
        failure = self.end.failure
        restarting = self.end.directive is Directive.RESTART and failure is not None
        self._restarted_after = failure if restarting else None
        self.state = "restarting" if restarting else "stopping"
        with trio.move_on_after(self.props.shutdown, shield=True) as deadline:
            try:
                if failure is not None:
                    await attempt(actor.on_failure, failure, ctx)
                if restarting and failure is not None:
                    await attempt(actor.pre_restart, failure, ctx)
                else:
                    await attempt(actor.post_stop, ctx)
            except Exception:
                log.exception("%s: the closing hook failed", self.path)
        if deadline.cancelled_caught:
            log.error("%s: the closing hook took more than %gs", self.path, self.props.shutdown)

    def _terminate(self) -> None:
        self.state = "stopped"
        if self.parent is not None:
            self.parent.child_gone(self)
        self.inbox.close()
        self.settled.set()
        self.terminated.set()
        self._up.set()
        self._down.set()
        self.watches.run_afterwards()
        # Before the watchers hear of it: a parent that watches its child should fail with the escalation.
        if self.end.escalation is not None:
            self._escalate(self.end.escalation)
        self.watches.notify()
        self.system.events.publish(ActorTerminated(self.path, self.end.reason, self.end.failure))

    def _escalate(self, escalation: Exception) -> None:
        self.system.events.publish(ActorEscalated(self.path, escalation))
        if self.parent is not None:
            self.parent.signal(Escalated(escalation))
        else:
            self.system.root_failed(escalation)
