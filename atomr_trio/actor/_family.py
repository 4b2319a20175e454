"""A cell's children: started in order, shielded from above, stopped one by one in reverse."""

import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import trio
from attrs import evolve

from ._errors import ActorStopped, ChildEscalated, NameTaken, SupervisorGaveUp
from ._failures import leaves
from ._supervision import Directive, Restart, RestartWindow, SupervisorStrategy
from ._verdict import Verdict

if TYPE_CHECKING:
    from ._cell import Cell

N = TypeVar("N")

__all__ = ["Family"]


class Family:
    """The children of one incarnation.

    They run in a nursery of their own under a shield: a cancellation from above must not reach all of them at once,
    or the reverse order would be lost (python-trio/trio#1521). The cell turns it into ordered stops instead. The
    nursery is opened with the first child, so that a leaf actor costs one task.
    """

    def __init__(self, path: str, living: "dict[str, Cell[Any]]", tasks: trio.Nursery, source: random.Random) -> None:
        self._path = path
        self._living = living
        self._tasks = tasks
        self._nursery: trio.Nursery | None = None
        self._unstarted: list[Callable[[], Awaitable[None]]] = []
        self._release = trio.Event()
        self._closed = False
        self._window: RestartWindow | None = None
        self._random = source
        self._regrouping = trio.Lock()
        # The gate that each child of a group under restart waits at, until it is opened.
        self._gates: dict[Cell[Any], trio.Event] = {}

    def adopt(self, name: str, child: "Cell[Any]") -> None:
        """Start a child's task."""
        if self._closed:
            raise ActorStopped(self._path)
        if name in self._living:
            raise NameTaken(child.path)
        self._living[name] = child
        if self._nursery is not None:
            self._nursery.start_soon(child.run, name=child.path)
            return
        if not self._unstarted:
            self._tasks.start_soon(self._hold, name=f"{self._path} children")
        self._unstarted.append(child.run)

    async def _hold(self) -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as self._nursery:
                for run in self._unstarted:
                    self._nursery.start_soon(run)
                await self._release.wait()

    async def stop_all(self, reason: str) -> None:
        """Stop the children, the youngest first, each awaited before the next. Every one bounds its own stop."""
        self._closed = True
        while self._living:
            child = next(reversed(self._living.values()))
            child.stop(reason)
            await child.terminated.wait()
        self._release.set()

    def judge(self, strategy: SupervisorStrategy, child: "Cell[Any]", failure: Exception, now: float) -> Verdict:
        """Decide what becomes of a failed child at time ``now``."""
        directive = Directive.STOP if self._closed else _decide(strategy, failure)
        if directive is Directive.ESCALATE:
            escalated = ChildEscalated(child.path)
            escalated.__cause__ = failure
            return Verdict(directive, "escalated", failure, escalated)
        if directive is Directive.RESTART:
            return self._restart(strategy, child, failure, now)
        verdict = Verdict(directive, "failed", failure)
        if directive is Directive.STOP and not self._closed:
            self._regroup(strategy, child, verdict)
        return verdict

    def restart_ended(self, strategy: SupervisorStrategy, child: "Cell[Any]", reason: str, now: float) -> Verdict:
        """Decide about a permanent child that stopped itself."""
        if self._closed:
            return Verdict(Directive.STOP, reason)
        return self._restart(strategy, child, ActorStopped(child.path), now)

    def _restart(self, strategy: SupervisorStrategy, child: "Cell[Any]", failure: Exception, now: float) -> Verdict:
        pending = self._gates.get(child)
        if pending is not None:
            # It failed while its siblings were being stopped for another one's failure: that restart is its own too.
            return Verdict(Directive.RESTART, "failed", failure, gate=pending)
        if child.spec.restart is Restart.TEMPORARY:
            return Verdict(Directive.STOP, "failed, and it is temporary", failure)
        if not self._admit(strategy, now):
            gave_up = SupervisorGaveUp(self._path, child.path, strategy.max_restarts, strategy.within)
            gave_up.__cause__ = failure
            return Verdict(Directive.ESCALATE, "the supervisor gave up", failure, gave_up)
        return self._regroup(
            strategy, child, Verdict(Directive.RESTART, "failed", failure, delay=self._delay(strategy))
        )

    def _regroup(self, strategy: SupervisorStrategy, failed: "Cell[Any]", verdict: Verdict) -> Verdict:
        """Take down the siblings that the failure concerns, and return what becomes of the failed child."""
        group = strategy.affected(list(self._living.values()), failed)
        if len(group) == 1:
            return verdict
        restarting = verdict.directive is Directive.RESTART
        verdicts = {cell: evolve(verdict, gate=trio.Event() if restarting else None, delay=0.0) for cell in group}
        for cell, ruling in verdicts.items():
            if ruling.gate is not None and cell.spec.restart is not Restart.TEMPORARY:
                self._gates[cell] = ruling.gate
        self._tasks.start_soon(self._enact, failed, verdicts, verdict.delay, name=f"{self._path} regrouping")
        return verdicts[failed]

    async def _enact(self, failed: "Cell[Any]", verdicts: "dict[Cell[Any], Verdict]", delay: float) -> None:
        # One at a time: a second failure finds the group down, or up again, never half.
        async with self._regrouping:
            for cell in reversed(verdicts):
                if cell is not failed:
                    cell.regroup(verdicts[cell])
                await cell.wait_down()
            await trio.sleep(delay)
            for cell, verdict in verdicts.items():
                if self._closed or verdict.gate is None or self._gates.get(cell) is not verdict.gate:
                    continue
                del self._gates[cell]
                verdict.gate.set()
                if not await cell.wait_up():
                    return  # its failure has called for another regrouping, which covers those still down

    def forget(self, child: "Cell[Any]") -> None:
        """A child is gone for good."""
        self._gates.pop(child, None)

    def _admit(self, strategy: SupervisorStrategy, now: float) -> bool:
        if self._window is None:
            self._window = RestartWindow(strategy.max_restarts, strategy.within)
        return self._window.admit(now)

    def _delay(self, strategy: SupervisorStrategy) -> float:
        if strategy.backoff is None or self._window is None:
            return 0.0
        return strategy.backoff.delay(self._window.count - 1, self._random.random())


def _decide(strategy: SupervisorStrategy, failure: Exception) -> Directive:
    # The most severe directive among the leaves of a group wins. A decider that raises has decided nothing.
    try:
        decided = [strategy.decider(leaf) for leaf in leaves(failure) if isinstance(leaf, Exception)]
        return max(decided, key=lambda directive: directive.value)
    except Exception:
        return Directive.ESCALATE
