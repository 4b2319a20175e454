"""The cell: one place in the tree, one task from spawn to final stop, and in it one life of the actor after the other.

The cell owns the mailbox, the name and the watchers; they outlive each incarnation.
"""

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import trio

from . import _log
from ._actor import ChildSpec, Props
from ._cycle import RUNNING
from ._errors import ActorFailed, ActorStopped
from ._events import ActorEscalated, ActorRestarted, ActorTerminated
from ._hand import Hand
from ._inbox import Inbox
from ._incarnation import CANCELLED, Incarnation
from ._mailbox import Mailbox
from ._metadata import METADATA, NOTHING
from ._ref import ActorRef
from ._signals import Escalated, Regroup, Signal, Stop
from ._supervision import Directive
from ._verdict import Verdict
from ._watch import Watches

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._family import Family
    from ._system import ActorSystem

M = TypeVar("M")
N = TypeVar("N")

__all__ = ["Cell"]

RESTING = frozenset({"stopping", "restarting", "waiting"})


class Cell(Generic[M]):
    """What stands behind a reference.

    Args:
        system: the system it lives in.
        path: its place.
        spec: the recipe.
        parent: the cell above; ``None`` at the root.
        supervisor: the family it is a child of, which decides about its failures; ``None`` at the root.
    """

    __slots__ = (
        "_down",
        "_settled",
        "_up",
        "_waiting",
        "end",
        "hand",
        "inbox",
        "last_failure",
        "life",
        "mailbox",
        "parent",
        "path",
        "pause_ends",
        "props",
        "ref",
        "regrouped",
        "shutdown",
        "spawner_waits",
        "spec",
        "state",
        "stopping",
        "supervisor",
        "system",
        "task",
        "terminated",
        "was_started",
        "watches",
    )

    def __init__(
        self,
        system: "ActorSystem",
        path: str,
        spec: ChildSpec[M],
        parent: "Cell[Any] | None",
        supervisor: "Family | None",
    ) -> None:
        props = spec.props
        self.system: ActorSystem = system
        self.path: str = path
        self.spec: ChildSpec[M] = spec
        self.props: Props[M] = props
        self.shutdown: float = props.shutdown if spec.shutdown is None else spec.shutdown
        self.parent: Cell[Any] | None = parent
        self.supervisor: Family | None = supervisor
        self.mailbox: Mailbox = Mailbox(path, props.capacity, props.overflow, system.dead_letters)
        self.ref: ActorRef[M] = ActorRef(self)
        self.inbox: Inbox = Inbox(self.mailbox)
        self.hand: Hand = Hand(self.mailbox, props.stash_capacity)
        self.watches: Watches = Watches(self)
        self.state: str = "new"
        self.life: Incarnation[M] | None = None
        self.task: trio.lowlevel.Task | None = None
        self.end: Verdict = CANCELLED
        self.last_failure: Exception | None = None
        self.was_started: bool = False
        self.spawner_waits: bool = False
        self.stopping: Stop | None = None
        self.regrouped: Verdict | None = None
        self.pause_ends: float = 0.0
        self.terminated: trio.Event = trio.Event()
        self._settled = trio.Event()
        self._up = trio.Event()
        self._down = trio.Event()
        self._waiting: trio.CancelScope | None = None

    @property
    def incarnation(self) -> int:
        """How many lives there were, the present one included."""
        return self.life.number if self.life is not None else 0

    @property
    def children(self) -> "dict[str, Cell[Any]]":
        """The living children by name, in start order."""
        return self.life.children if self.life is not None else {}

    @property
    def is_resting(self) -> bool:
        """Whether a life is closing, or over, and the next one has not begun."""
        return self.state in RESTING

    # Called from anywhere; what is not async never waits.

    def signal(self, signal: Signal) -> None:
        """Queue a system message and wake the cell if it is idle."""
        if not self.terminated.is_set():
            self.inbox.signal(signal)

    def stop(self, reason: str, *, by_itself: bool = False) -> None:
        """Ask for a stop; the message in hand gets the shutdown deadline, a start or a pause in progress gets none."""
        # A stop from outside overrules one of the actor's own, which a permanent child would not be granted.
        overruled = self.stopping is None or (self.stopping.by_itself and not by_itself)
        if not overruled or self.terminated.is_set():
            return
        self.stopping = Stop(reason, by_itself)
        self._interrupt(reason)
        self.signal(self.stopping)

    def regroup(self, verdict: Verdict) -> None:
        """End this life as a sibling's failure demands; what follows is the verdict."""
        if verdict.directive is Directive.STOP:
            self.stop(f"a sibling {verdict.reason}")
        elif self.state == "waiting":
            # It was about to start again; now it waits for its turn, and nobody waits for it to be up.
            self.end = verdict
            self._up.set()
            self._up = trio.Event()
            self._interrupt("a sibling failed")
        else:
            self.regrouped = verdict
            # A life that is closing needs no telling, and the next one must not hear of it.
            if not self.is_resting:
                self._interrupt("a sibling failed")
                self.signal(Regroup(verdict))

    def _interrupt(self, reason: str) -> None:
        if self._waiting is not None:
            self._waiting.cancel(reason=reason)
        if self.life is not None:
            self.life.interrupt(reason, self.shutdown)

    async def started(self) -> ActorRef[M]:
        """Wait for the first start. To be called by the spawner, whose cancellation takes the child back.

        Raises:
            ActorFailed: the start failed; the actor is gone.
            ActorStopped: it was stopped meanwhile.
        """
        self.spawner_waits = True
        try:
            await self._settled.wait()
        except trio.Cancelled:
            self.stop("its spawner was cancelled")
            raise
        if self.was_started:
            return self.ref
        if self.last_failure is not None:
            raise ActorFailed(self.path) from self.last_failure
        raise ActorStopped(self.path)

    async def wait_down(self) -> None:
        """Wait until the present life is over."""
        await self._down.wait()

    async def wait_up(self) -> None:
        """Wait until the next life runs or has failed to start, or the cell is gone."""
        await self._up.wait()

    def on_terminated_call(self, callback: "Callable[[], None]") -> "Callable[[], None]":
        """Call ``callback``, which must not raise, once this cell is gone; returns how to undo it."""
        return self.watches.call_afterwards(callback)

    # Called by the incarnation.

    def child(self, spec: ChildSpec[N], family: "Family") -> "Cell[N]":
        """Return a new cell below this one."""
        return Cell(self.system, f"{self.path.rstrip('/')}/{spec.id}", spec, self, family)

    def is_up(self) -> None:
        """The present life handles messages from now on."""
        self.state = "running"
        self.was_started = True
        self._settled.set()
        self._up.set()

    # The cell's own task.

    async def run(self) -> None:
        """Live through all incarnations."""
        self.task = trio.lowlevel.current_task()
        # Both were inherited from whoever spawned this cell.
        RUNNING.set(self)
        METADATA.set(NOTHING)
        try:
            while (await self._live()).directive is Directive.RESTART and await self._pause():
                _log.restarting(self.path, self.incarnation + 1)
                if self.end.failure is not None:
                    self.system.events.publish(ActorRestarted(self.path, self.end.failure))
        finally:
            self._terminate()

    async def _live(self) -> Verdict:
        after = self.end.failure if self.end.directive is Directive.RESTART else None
        self._down = trio.Event()
        self.life = Incarnation(self, self.incarnation + 1, after)
        self.end = CANCELLED
        try:
            self.end = await self.life.run()
        finally:
            self._up.set()
            self._down.set()
        return self.end

    async def _pause(self) -> bool:
        """Wait for the turn to start again; returns false when a stop came instead."""
        self.state = "waiting"
        self._up = trio.Event()
        if self.end.delay:
            self.pause_ends = trio.current_time() + self.end.delay
        if self.regrouped is not None:
            self.end, self.regrouped = self.regrouped, None
        waited: Verdict | None = None
        while self.stopping is None and self.end is not waited:
            waited = self.end
            await self._wait(waited.delay, waited.gate)
        if self.stopping is not None:
            self.end = Verdict(Directive.STOP, self.stopping.reason, self.end.failure)
        return self.stopping is None

    async def _wait(self, delay: float, gate: trio.Event | None) -> None:
        if gate is None and not delay:
            # Even so a restart takes a turn of the scheduler, or an actor that never starts would hold the loop.
            await trio.lowlevel.checkpoint()
            return
        with trio.CancelScope() as self._waiting:
            await trio.sleep(delay)
            if gate is not None:
                await gate.wait()
        self._waiting = None

    def _terminate(self) -> None:
        self.state = "stopped"
        if self.supervisor is not None:
            self.supervisor.child_gone(self)
        self.hand.close(self.path)
        self.inbox.close()
        self._settled.set()
        self.terminated.set()
        self._up.set()
        self._down.set()
        self.watches.run_afterwards()
        # Before the watchers hear of it: a parent that watches its child should fail with the escalation.
        if self.end.escalation is not None:
            self._escalate(self.end.escalation)
        self.watches.notify()
        _log.ended(self.path, self.end.reason)
        self.system.events.publish(ActorTerminated(self.path, self.end.reason, self.end.failure))

    def _escalate(self, escalation: Exception) -> None:
        _log.escalated(self.path, escalation)
        self.system.events.publish(ActorEscalated(self.path, escalation))
        if self.parent is not None:
            self.parent.signal(Escalated(escalation))
        else:
            self.system.root_failed(escalation)
