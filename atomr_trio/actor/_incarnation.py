"""One life of an actor: start, pump the mailbox, stop the children, cancel the tasks, call the closing hooks.

A failure is caught here and handed to the supervisor; nothing but cancellation and the interpreter's own exits ever
leaves ``run``.
"""

import enum
from collections.abc import Awaitable, Callable
from functools import partial
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio

from . import _log
from ._actor import Actor, ChildSpec
from ._closing import call_hooks, closing_hooks
from ._context import Behaviour, Context
from ._errors import ActorStopped, DeathPact
from ._events import ActorStarted
from ._failures import attempt, purified
from ._family import Family
from ._mailbox import EMPTY
from ._metadata import Envelope
from ._signals import Escalated, ReceiveTimeout, Regroup, Signal, Stop, TaskFailed, Terminated
from ._supervision import Directive, Restart
from ._timers import TimerFired, Timers
from ._verdict import Verdict

if TYPE_CHECKING:
    from ._cell import Cell

M = TypeVar("M")
N = TypeVar("N")

__all__ = ["Incarnation"]

MESSAGES_PER_TURN = 256
SECONDS_PER_TURN = 0.001
"""A busy actor yields to the scheduler after so many messages, or after so long."""


class Rest(enum.Enum):
    """Why a turn has ended without a verdict."""

    DRY = "there is no mail"
    SPENT = "others are to go on"


CANCELLED = Verdict(Directive.STOP, "cancelled from above")


def _nobody(message: Any, _ctx: Context[Any]) -> None:
    raise AssertionError(f"no instance to handle {message!r}")


class Incarnation(Generic[M]):
    """Holds the instance, its children, its tasks and its timers.

    Args:
        cell: the place in the tree that it lives in.
        number: 1 for the first life.
        after: the failure that ended the life before.
    """

    __slots__ = (
        "_actor",
        "_after",
        "_behaviours",
        "_ctx",
        "_end",
        "_family",
        "_handle",
        "_is_over",
        "_may_adopt",
        "_scope",
        "_tasks",
        "_timers",
        "cell",
        "number",
    )

    def __init__(self, cell: "Cell[M]", number: int, after: Exception | None) -> None:
        self.cell: Cell[M] = cell
        self.number: int = number
        self._after = after
        self._ctx = Context(self)
        self._actor: Actor[M] | None = None
        self._behaviours: list[Behaviour] = []
        self._handle: Behaviour = _nobody
        self._family: Family | None = None
        self._timers: Timers | None = None
        self._tasks: trio.Nursery
        self._scope = trio.CancelScope()
        self._end = CANCELLED
        self._may_adopt = True
        self._is_over = False

    # Called by the context, from the handler or from tasks.

    @property
    def children(self) -> "dict[str, Cell[Any]]":
        """The living children by name, in start order."""
        return self._family.living if self._family is not None else {}

    @property
    def timers(self) -> Timers:
        """The timers of this life.

        Raises:
            ActorStopped: it is over.
        """
        self._require_alive()
        if self._timers is None:
            self._timers = Timers(partial(self.spawn_task, name="timer"), self.cell.signal)
        return self._timers

    def adopt(self, spec: ChildSpec[N]) -> "Cell[N]":
        """Start a child without waiting for it.

        Raises:
            ActorStopped: this life is over, or ending.
            NameTaken: a living child has this name.
        """
        if not self._may_adopt:
            raise ActorStopped(self.cell.path)
        if self._family is None:
            self._family = Family(self.cell, self._require_actor(), self._tasks)
        child = self.cell.child(spec, self._family)
        self._family.adopt(spec.id, child)
        return child

    def spawn_task(self, fn: Callable[..., Awaitable[object]], *args: object, name: str | None = None) -> None:
        """Run a background task of this life."""
        self._require_alive()
        label = f"{self.cell.path} {name or getattr(fn, '__name__', 'task')}"
        self._tasks.start_soon(self._background, fn, args, name=label)

    async def _background(self, fn: Callable[..., Awaitable[object]], args: tuple[object, ...]) -> None:
        try:
            await attempt(fn, *args)
        except Exception as failure:
            self.cell.signal(TaskFailed(failure))

    def become(self, behaviour: Behaviour) -> None:
        """Let a behaviour handle messages from the next one on."""
        self._behaviours.append(behaviour)
        self._handle = behaviour

    def unbecome(self) -> None:
        """Go back to the behaviour before."""
        if self._behaviours:
            self._behaviours.pop()
        self._handle = self._behaviours[-1] if self._behaviours else self._require_actor().handle

    def interrupt(self, reason: str, seconds: float) -> None:
        """Cut a start short; give the message in hand so many seconds."""
        if self.cell.state == "starting":
            self._scope.cancel(reason=reason)
        self._scope.deadline = trio.current_time() + seconds

    def _require_alive(self) -> None:
        if self._is_over:
            raise ActorStopped(self.cell.path)

    def _require_actor(self) -> Actor[M]:
        assert self._actor is not None
        return self._actor

    # The cell's own task.

    async def run(self) -> Verdict:
        """Live; returns what follows."""
        try:
            async with trio.open_nursery() as self._tasks:
                try:
                    self._end = await self._work()
                finally:
                    reason = f"{self.cell.path}: {self._end.reason}"
                    self.cell.state = "stopping"
                    self._may_adopt = False
                    if self._family is not None:
                        with trio.CancelScope(shield=True):
                            await self._family.stop_all(reason)
                    self._tasks.cancel_scope.cancel(reason=reason)
        finally:
            self._abandon()
            if self._actor is not None and (hooks := closing_hooks(self._actor, self._ctx, self._end)):
                with trio.CancelScope(shield=True):
                    await call_hooks(hooks, self.cell.path, self.cell.shutdown)
            # A reference may be kept for long; what it leads to must not hold a dead actor's state.
            self._actor = self._family = None
            self._handle = _nobody
        return self._end

    async def _work(self) -> Verdict:
        """Start the actor and pump its mailbox until a verdict falls."""
        cell = self.cell
        with self._scope:
            try:
                if cell.stopping is not None:
                    return Verdict(Directive.STOP, cell.stopping.reason)
                cell.state = "starting"
                await self._start()
            except Exception as failure:
                return self._judge(failure)
            cell.is_up()
            cell.system.events.publish(ActorStarted(cell.path, self.number))
            _log.started(cell.path, self.number)
            return await self._pump()
        # Only `interrupt` ends this scope: a start was cut short, or a handler overran its deadline.
        if cell.stopping is None and cell.regrouped is not None:
            return cell.regrouped
        return Verdict(Directive.STOP, cell.stopping.reason if cell.stopping is not None else "stopped")

    async def _start(self) -> None:
        self.cell.inbox.set_idle_timeout(None)
        self._actor = actor = self.cell.props.factory()
        self._handle = actor.handle
        await attempt(actor.pre_start, self._ctx)
        if self._after is not None:
            await attempt(actor.post_restart, self._after, self._ctx)

    async def _pump(self) -> Verdict:
        """Obey signals before mail, handle mail while there is some, and let others have their turn in between."""
        inbox, item = self.cell.inbox, EMPTY
        inbox.not_idle()
        while True:
            said = await self._obey(inbox.signals.pop(0)) if inbox.signals else await self._turn(item)
            self.cell.hand.put_down()
            item = EMPTY
            if isinstance(said, Verdict):
                return said
            if said is Rest.SPENT:
                await trio.lowlevel.checkpoint()
            elif said is Rest.DRY and await inbox.park():
                item = ReceiveTimeout()

    async def _turn(self, item: Any) -> "Verdict | Rest | None":
        """Handle ``item``, then mail: until there is none, a signal comes, a verdict falls, or others are to go on.

        This is the loop that every message goes through; it calls as little as it can.
        """
        cell, ctx = self.cell, self._ctx
        inbox, hand, mailbox, clock = cell.inbox, cell.hand, cell.mailbox, cell.system.clock
        front, signals, queue = inbox.front, inbox.signals, mailbox.queue
        mailbox.note_peak()
        until = clock() + SECONDS_PER_TURN
        for _ in range(MESSAGES_PER_TURN):
            if item is EMPTY:
                if signals:
                    return None
                if front:
                    item = front.pop()
                elif queue:
                    item = mailbox.take() if mailbox.senders else queue.popleft()
                else:
                    return Rest.DRY
            is_letter = isinstance(item, Envelope)
            message = hand.open(item) if is_letter or hand.is_marked else item
            hand.item, item = item, EMPTY
            if message is EMPTY:
                continue
            hand.since = now = clock()
            try:
                # A plain function may handle messages too: what it returns is then the answer itself.
                answer: Any = self._handle(message, ctx)
                if type(answer) is CoroutineType or (answer is not None and isinstance(answer, Awaitable)):
                    answer = await answer  # pyright: ignore[reportUnknownVariableType]
            except Exception as failure:
                hand.fail(cell.path, failure)
                inbox.not_idle()
                return self._judge_running(failure)
            except BaseExceptionGroup as group:
                raise purified(group) from None
            if is_letter:
                hand.answer(answer)
            if inbox.is_timed:
                inbox.not_idle()
            if now > until:
                break
        return Rest.SPENT

    async def _obey(self, signal: Signal) -> Verdict | Rest | None:
        match signal:
            case Stop():
                return self._obey_stop(self.cell.stopping or signal)
            case Regroup(verdict):
                return verdict
            case TaskFailed(failure) | Escalated(failure):
                return self._judge_running(failure)
            case TimerFired():
                wanted = self._timers is not None and self._timers.accept(signal)
                return await self._turn(signal.message) if wanted else None
            case Terminated():
                return await self._tell_of_death(signal)

    async def _tell_of_death(self, notice: Terminated) -> Verdict | None:
        pact = self.cell.watches.accept(notice)
        if pact is None:
            return None
        try:
            if pact:
                raise DeathPact(self.cell.path, notice.ref.path, notice.reason) from notice.failure
            await attempt(self._require_actor().on_terminated, notice, self._ctx)
        except Exception as failure:
            return self._judge_running(failure)
        return None

    def _obey_stop(self, stop: Stop) -> Verdict:
        cell = self.cell
        if stop.by_itself and cell.spec.restart is Restart.PERMANENT and cell.supervisor is not None:
            verdict = cell.supervisor.judge_ended(cell, stop.reason)
            if verdict.directive is not Directive.STOP:
                cell.stopping = None
            return verdict
        return Verdict(Directive.STOP, stop.reason)

    def _judge_running(self, failure: Exception) -> Verdict | None:
        verdict = self._judge(failure)
        return None if verdict.directive is Directive.RESUME else verdict

    def _judge(self, failure: Exception) -> Verdict:
        """Ask the supervisor what to do. A failure during a stop is logged and changes nothing."""
        cell = self.cell
        cell.last_failure = failure
        if cell.stopping is not None:
            _log.late_failure(cell.path, failure)
            return Verdict(Directive.STOP, cell.stopping.reason, failure)
        if cell.regrouped is not None:
            return cell.regrouped
        if cell.spawner_waits and not cell.was_started:
            return Verdict(Directive.STOP, "failed to start", failure)
        if cell.supervisor is None:
            return Verdict(Directive.ESCALATE, "escalated", failure, failure)
        verdict = cell.supervisor.judge(cell, failure)
        if verdict.directive is Directive.RESUME and cell.state == "starting":
            return Verdict(Directive.STOP, "failed to start", failure)
        return verdict

    def _abandon(self) -> None:
        """Settle what nobody will answer any more, and forget what concerns this life alone."""
        self._is_over = True
        cell, restarting = self.cell, self._end.directive is Directive.RESTART
        cell.state = "restarting" if restarting else "stopping"
        cell.hand.close(cell.path, keep_stash=restarting and cell.props.keep_stash)
        cell.inbox.drop_signals(lambda signal: not isinstance(signal, Stop | Terminated))
