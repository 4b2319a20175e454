"""The cell: one task from spawn to final stop, and in it one incarnation of the actor after the other.

The cell owns the mailbox, the name and the watchers; the incarnation owns the instance, the children and the
background tasks. A failure is caught here and handed to the parent's strategy; nothing but cancellation and the
interpreter's own exits ever leaves ``run``.
"""

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio

from ._actor import Actor, ChildSpec
from ._context import Context
from ._errors import ActorFailed, ActorStopped
from ._failures import attempt, describe, purified
from ._family import Family
from ._mailbox import EMPTY, Mailbox
from ._ref import ActorRef, cell_of
from ._reply import Ask, ReplySlot
from ._signals import Escalated, Regroup, Signal, Stop, TaskFailed, Terminated
from ._supervision import Directive, Restart
from ._verdict import Verdict

if TYPE_CHECKING:
    from ._system import ActorSystem

M = TypeVar("M")
N = TypeVar("N")

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
        self.mailbox = Mailbox(path, props.capacity, props.overflow, system.dead_letters)
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
        self.asking: ReplySlot[Any] | None = None
        self._actor: Actor[M] | None = None
        self._family: Family | None = None
        self._tasks: trio.Nursery | None = None
        self._scope: trio.CancelScope | None = None
        self._parked: trio.CancelScope | None = None
        self._signals: deque[Signal] = deque()
        self._waiting: trio.CancelScope | None = None
        self._stop: Stop | None = None
        self._regrouped: Verdict | None = None
        self._restarted_after: Exception | None = None
        self.spawner_waits = False
        self._deferred: set[ReplySlot[Any]] = set()
        self.watchers: dict[Cell[Any], None] = {}
        self._watching: dict[Cell[Any], None] = {}
        self._afterwards: dict[object, Callable[[], None]] = {}

    # Called from anywhere; nothing here waits.

    def deliver(self, item: Any) -> None:
        """Put a message or an ``Ask`` into the mailbox."""
        self.mailbox.put(item)

    async def deliver_when_room(self, item: Any) -> None:
        """Put a message into the mailbox, waiting for room."""
        await self.mailbox.put_when_room(item)

    def signal(self, signal: Signal) -> None:
        """Queue a system message and wake the cell if it is idle."""
        if self.terminated.is_set():
            return
        self._signals.append(signal)
        # Trio has no select. An idle cell waits for mail inside a scope of its own; cancelling it loses nothing,
        # because `receive` is atomic under cancellation.
        if self._parked is not None:
            self._parked.cancel(reason=f"system message for {self.path}")

    def stop(self, reason: str, *, by_itself: bool = False) -> None:
        """Ask for a stop; the message in hand gets the shutdown deadline, a start or a pause in progress gets none."""
        if self._stop is not None or self.terminated.is_set():
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

    def watch(self, ref: ActorRef[Any]) -> None:
        """Get a ``Terminated`` once ``ref`` is gone."""
        target = cell_of(ref)
        self._watching[target] = None
        if target.terminated.is_set():
            self.signal(Terminated(ref, target.end.reason, target.end.failure))
        else:
            target.watchers[self] = None

    def unwatch(self, ref: ActorRef[Any]) -> None:
        """Forget ``ref``; a queued ``Terminated`` is dropped when its turn comes."""
        target = cell_of(ref)
        self._watching.pop(target, None)
        target.watchers.pop(self, None)

    def on_terminated_call(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback``, which must not raise, once this cell is gone; at once if it is. Returns how to undo it."""
        key = object()
        if self.terminated.is_set():
            callback()
        else:
            self._afterwards[key] = callback

        def undo() -> None:
            self._afterwards.pop(key, None)

        return undo

    def defer_reply(self) -> ReplySlot[Any]:
        """Take over the answer of the ask in hand."""
        if self.asking is None:
            return ReplySlot(math.inf)
        slot, self.asking = self.asking, None
        self._deferred = {kept for kept in self._deferred if not (kept.is_resolved or kept.abandoned)}
        self._deferred.add(slot)
        return slot

    # The cell's own task.

    async def run(self) -> None:
        """Live through all incarnations."""
        try:
            while (await self._live()).directive is Directive.RESTART and await self._pause():
                log.info("restarting %s", self.path)
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
            return await self._pump(ctx)
        # Only `_interrupt` ends this scope: a start was cut short, or a handler overran its deadline.
        if self._stop is None and self._regrouped is not None:
            return self._regrouped
        return Verdict(Directive.STOP, self._stop.reason if self._stop is not None else "stopped")

    async def _start(self, ctx: Context[M]) -> None:
        self._actor = self.props.factory()
        await attempt(self._actor.pre_start, ctx)
        after, self._restarted_after = self._restarted_after, None
        if after is not None:
            await attempt(self._actor.post_restart, after, ctx)

    async def _pump(self, ctx: Context[M]) -> Verdict:
        actor = self._actor
        assert actor is not None
        handled = 0
        while True:
            while self._signals:
                verdict = await self._obey(self._signals.popleft(), actor, ctx)
                if verdict is not None:
                    return verdict
            item = self.mailbox.get_nowait()
            if item is EMPTY:
                handled = 0
                item = await self._park()
            if item is not EMPTY:
                verdict = await self._handle(item, actor, ctx)
                if verdict is not None:
                    return verdict
                handled += 1
            if handled >= MESSAGES_PER_TURN:
                handled = 0
                await trio.lowlevel.checkpoint()

    async def _park(self) -> Any:
        """Wait for mail or for a system message; returns ``EMPTY`` for the latter."""
        item: Any = EMPTY
        self._parked = trio.CancelScope()
        with self._parked:
            item = await self.mailbox.get()
        self._parked = None
        return item

    async def _handle(self, item: Any, actor: Actor[M], ctx: Context[M]) -> Verdict | None:
        message = item
        if isinstance(item, Ask):
            if item.slot.abandoned or trio.current_time() >= item.slot.deadline:
                self.mailbox.lose(item, "nobody waits for the answer")
                return None
            message, self.asking = item.message, item.slot
        try:
            answer = await actor.handle(message, ctx)
        except Exception as failure:
            self._fail_ask(failure)
            return self._judge_running(failure)
        except BaseExceptionGroup as group:
            raise purified(group) from None
        # `defer_reply` has taken the slot if it is not there any more.
        if self.asking is not None:
            self.asking.resolve(answer)
            self.asking = None
        return None

    def _fail_ask(self, failure: Exception) -> None:
        if self.asking is not None:
            error = ActorFailed(self.path)
            error.__cause__ = failure
            self.asking.fail(error)
            self.asking = None

    async def _obey(self, signal: Signal, actor: Actor[M], ctx: Context[M]) -> Verdict | None:
        if isinstance(signal, Stop):
            return self._obey_stop(signal)
        if isinstance(signal, Regroup):
            return signal.verdict
        if isinstance(signal, TaskFailed | Escalated):
            return self._judge_running(signal.failure)
        target = cell_of(signal.ref)
        if target not in self._watching:
            return None
        del self._watching[target]
        try:
            await attempt(actor.on_terminated, signal, ctx)
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
        self._tasks = self._family = self._scope = None
        if self.asking is not None:
            self._deferred.add(self.asking)
        for slot in self._deferred:
            slot.fail(ActorStopped(self.path))
        self._deferred, self.asking = set(), None
        # Failures of tasks and children of this incarnation do not concern the next one.
        stale = (TaskFailed, Escalated, Regroup)
        self._signals = deque(signal for signal in self._signals if not isinstance(signal, stale))
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
        self.mailbox.close()
        self.settled.set()
        self.terminated.set()
        self._up.set()
        self._down.set()
        while self._afterwards:
            self._afterwards.popitem()[1]()
        # Before the watchers hear of it: a parent that watches its child should fail with the escalation.
        if self.end.escalation is not None:
            self._escalate(self.end.escalation)
        notice = Terminated(self.ref, self.end.reason, self.end.failure)
        for watcher in self.watchers:
            watcher.signal(notice)
        for target in self._watching:
            target.watchers.pop(self, None)

    def _escalate(self, escalation: Exception) -> None:
        if self.parent is not None:
            self.parent.signal(Escalated(escalation))
        else:
            self.system.root_failed(escalation)
