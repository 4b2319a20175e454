"""The root of the tree."""

import math
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from signal import Signals
from typing import Any, TypeVar

import trio

from ._actor import Actor, ChildSpec, Props
from ._cell import Cell
from ._deadlines import Deadlines
from ._errors import ActorStopped
from ._events import EventStream
from ._faults import Faults
from ._mailbox import DeadLetters
from ._ref import ActorRef
from ._registry import Registry
from ._shutdown import DEFAULT_PHASES, CoordinatedShutdown, Phase
from ._steps import watching_steps
from ._supervision import SupervisorStrategy, escalating
from ._tree import ActorNode, dumping, snapshot

M = TypeVar("M")

__all__ = ["ActorSystem"]


class _Guardian(Actor[Any]):
    """Parent of the top-level actors."""

    def __init__(self, strategy: SupervisorStrategy) -> None:
        self.supervisor_strategy = strategy


class ActorSystem:
    """A tree of actors. Open one with ``async with ActorSystem.create("name") as system``.

    ``dead_letters`` keeps the last lost messages, ``events`` tells what happens, ``registry`` finds actors by their
    service, and ``shutdown`` takes the tasks of an orderly end.
    """

    def __init__(
        self,
        name: str,
        strategy: SupervisorStrategy,
        seed: int | None = None,
        shutdown_phases: tuple[Phase, ...] = DEFAULT_PHASES,
        faults: Faults | None = None,
    ) -> None:
        self.name: str = name
        self.clock: Callable[[], float] = trio.lowlevel.current_clock().current_time
        self.faults: Faults = faults or Faults()
        self.dead_letters: DeadLetters = DeadLetters()
        self.deadlines: Deadlines = Deadlines()
        self.events: EventStream = EventStream(self.dead_letters)
        self.dead_letters.observe = self.events.publish
        self.registry: Registry = Registry(self.dead_letters)
        self.shutdown: CoordinatedShutdown = CoordinatedShutdown(name, shutdown_phases)
        # Every actor bounds its own stop.
        self.shutdown.add_task("stop_actors", "actors", self._stop_actors, timeout=math.inf)
        self._failure: Exception | None = None
        self.random: random.Random = random.Random(seed)
        guardian = Props[Any](factory=lambda: _Guardian(strategy))
        self._root: Cell[Any] = Cell(self, "/", ChildSpec(id="root", props=guardian), None, None)

    @classmethod
    @asynccontextmanager
    async def create(
        cls,
        name: str,
        *,
        supervisor_strategy: SupervisorStrategy | None = None,
        seed: int | None = None,
        shutdown_phases: tuple[Phase, ...] = DEFAULT_PHASES,
        dump_signal: Signals | None = None,
        slow_step: float | None = None,
        faults: Faults | None = None,
    ) -> "AsyncGenerator[ActorSystem]":
        """Open a system; leaving the block runs its ``shutdown``, which stops every actor, the youngest first.

        Args:
            name: for logs and the tree.
            supervisor_strategy: how top-level actors are supervised; without one their failures escalate, which
                ends the block.
            seed: of the jitter of restarts.
            shutdown_phases: the phases of ``shutdown``; the actors are stopped in the one named ``stop_actors``.
            dump_signal: writes the tree to the log whenever this signal arrives, for instance ``signal.SIGUSR1``.
            slow_step: log a warning when an actor holds the loop, without a checkpoint, for more seconds than this.
                It costs about a microsecond a step.
            faults: what happens at the fault points; for tests.

        Raises:
            ValueError: two phases have one name, or none is named ``stop_actors``.
            ChildEscalated: a top-level actor's failure was escalated; the failure is the cause.
            SupervisorGaveUp: a top-level actor failed too often.
        """
        system = cls(name, supervisor_strategy or escalating(), seed, shutdown_phases, faults)
        body_failure: Exception | None = None
        async with trio.open_nursery() as nursery, system._observed(nursery, slow_step, dump_signal):
            nursery.start_soon(system._run, nursery.cancel_scope, name=name)
            nursery.start_soon(system.deadlines.run, name=f"{name} deadlines")
            nursery.start_soon(system.shutdown.drive, name=f"{name} shutdown")
            try:
                await system._root.started()
                yield system
            except Exception as failure:
                # Raised again below, outside of the nursery: callers get it naked, not in a group.
                body_failure = failure
            finally:
                # Each phase has its deadlines; an aborted shutdown leaves the actors to be stopped here.
                with trio.CancelScope(shield=True):
                    await system.shutdown.run("the system's block was left")
                    await system._stop_actors()
                system.dead_letters.summarize()
        if system._failure is not None:
            raise system._failure
        if body_failure is not None:
            raise body_failure

    @asynccontextmanager
    async def _observed(
        self, nursery: trio.Nursery, slow_step: float | None, dump_signal: Signals | None
    ) -> AsyncGenerator[None]:
        with watching_steps(nursery, slow_step):
            async with dumping(dump_signal, self.tree):
                yield

    async def _run(self, scope: trio.CancelScope) -> None:
        try:
            await self._root.run()
        finally:
            self.deadlines.close()
        if self._failure is not None:
            scope.cancel(reason=f"actor system {self.name} failed")

    async def actor_of(self, props: Props[M], name: str) -> ActorRef[M]:
        """Start a top-level actor and wait until its ``pre_start`` is through.

        Raises:
            ActorFailed: its first start failed.
            ActorStopped: the system is stopping.
            NameTaken: there is one of this name.
        """
        return await self.start(ChildSpec(id=name, props=props))

    async def start(self, spec: ChildSpec[M]) -> ActorRef[M]:
        """Like ``actor_of``, for an actor with a restart type, a deadline or a significance of its own."""
        if self._root.life is None:
            raise ActorStopped(self._root.path)
        return await self._root.life.adopt(spec).started()

    def terminate(self, reason: str = "the system terminates") -> None:
        """Begin to stop all actors. Leaving the system's block waits for it."""
        self._root.stop(reason)

    async def _stop_actors(self) -> None:
        self.terminate()
        await self._root.terminated.wait()

    def lookup(self, path: str) -> ActorRef[Any] | None:
        """Return the living actor at a path such as ``/parent/child``; None if there is none."""
        if not path.startswith("/"):
            return None
        cell: Cell[Any] | None = self._root
        for name in path[1:].split("/"):
            cell = cell.children.get(name) if cell is not None else None
        return None if cell is None else cell.ref

    def root_failed(self, failure: Exception) -> None:
        """Take note that nobody above is left to decide; the system's block raises ``failure``."""
        self._failure = failure

    def tree(self) -> ActorNode:
        """Return a snapshot of all actors; ``str()`` of it draws the tree."""
        return snapshot(self._root)
