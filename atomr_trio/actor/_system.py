"""The root of the tree."""

import math
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio
from attrs import frozen

from ._actor import Actor, ChildSpec, Props
from ._cell import Cell
from ._events import EventStream
from ._mailbox import DeadLetters
from ._ref import ActorRef
from ._registry import Registry
from ._shutdown import DEFAULT_PHASES, CoordinatedShutdown, Phase
from ._supervision import SupervisorStrategy, escalating

M = TypeVar("M")

__all__ = ["ActorNode", "ActorSystem"]


class _Guardian(Actor[Any]):
    """Parent of the top-level actors."""

    def __init__(self, strategy: SupervisorStrategy) -> None:
        self.supervisor_strategy = strategy


@frozen(kw_only=True)
class ActorNode:
    """One actor in a snapshot of the tree."""

    path: str
    state: str
    queued: int
    restarts: int
    last_failure: str | None
    children: "tuple[ActorNode, ...]"


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
    ) -> None:
        self.name = name
        self.dead_letters = DeadLetters()
        self.events = EventStream(self.dead_letters)
        self.dead_letters.observe = self.events.publish
        self.registry = Registry(self.dead_letters)
        self.shutdown = CoordinatedShutdown(name, shutdown_phases)
        # Every actor bounds its own stop.
        self.shutdown.add_task("stop_actors", "actors", self._stop_actors, timeout=math.inf)
        self._failure: Exception | None = None
        self.random = random.Random(seed)
        guardian = Props[Any](factory=lambda: _Guardian(strategy))
        self._root: Cell[Any] = Cell(self, "/", ChildSpec(id="root", props=guardian), None)

    @classmethod
    @asynccontextmanager
    async def create(
        cls,
        name: str,
        *,
        supervisor_strategy: SupervisorStrategy | None = None,
        seed: int | None = None,
        shutdown_phases: tuple[Phase, ...] = DEFAULT_PHASES,
    ) -> "AsyncGenerator[ActorSystem]":
        """Open a system; leaving the block runs its ``shutdown``, which stops every actor, the youngest first.

        Args:
            name: for logs and the tree.
            supervisor_strategy: how top-level actors are supervised; without one their failures escalate, which
                ends the block.
            seed: of the jitter of restarts.
            shutdown_phases: the phases of ``shutdown``; the actors are stopped in the one named ``stop_actors``.

        Raises:
            ValueError: two phases have one name, or none is named ``stop_actors``.
            ChildEscalated: a top-level actor's failure was escalated; the failure is the cause.
            SupervisorGaveUp: a top-level actor failed too often.
        """
        system = cls(name, supervisor_strategy or escalating(), seed, shutdown_phases)
        body_failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(system._run, nursery.cancel_scope, name=name)
            nursery.start_soon(system.shutdown.drive, name=f"{name} shutdown")
            try:
                await system._root.settled.wait()
                yield system
            except Exception as failure:
                # Raised again below, outside of the nursery: callers get it naked, not in a group.
                body_failure = failure
            finally:
                # Each phase has its deadlines; an aborted shutdown leaves the actors to be stopped here.
                with trio.CancelScope(shield=True):
                    await system.shutdown.run("the system's block was left")
                    await system._stop_actors()
        if system._failure is not None:
            raise system._failure
        if body_failure is not None:
            raise body_failure

    async def _run(self, scope: trio.CancelScope) -> None:
        await self._root.run()
        if self._failure is not None:
            scope.cancel(reason=f"actor system {self.name} failed")

    async def actor_of(self, props: Props[M], name: str) -> ActorRef[M]:
        """Start a top-level actor and wait until its ``pre_start`` is through.

        Raises:
            ActorFailed: its first start failed.
            NameTaken: there is one of this name.
        """
        return await self._root.spawn(ChildSpec(id=name, props=props), self._root.incarnation)

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
        """Return a snapshot of all actors."""
        return _node(self._root)


def _node(cell: Cell[Any]) -> ActorNode:
    return ActorNode(
        path=cell.path,
        state=cell.state,
        queued=len(cell.inbox),
        restarts=max(0, cell.incarnation - 1),
        last_failure=None if cell.last_failure is None else repr(cell.last_failure),
        children=tuple(_node(child) for child in cell.children.values()),
    )
