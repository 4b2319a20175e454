"""A supervisor's children: started in order, judged when they fail, shielded from above, stopped in reverse."""

from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from . import _log
from ._errors import ActorStopped, ChildEscalated, NameTaken, RestartRecord, SupervisorGaveUp
from ._failures import leaves
from ._regrouping import Regrouping
from ._supervision import Directive, Restart, RestartWindow, SupervisorStrategy
from ._verdict import Verdict

if TYPE_CHECKING:
    from ._actor import Actor
    from ._cell import Cell

N = TypeVar("N")

__all__ = ["Family"]


class Family:
    """The children of one incarnation, and its decisions about them.

    They run in a nursery of their own under a shield: a cancellation from above must not reach all of them at once,
    or the reverse order would be lost (python-trio/trio#1521). The incarnation turns it into ordered stops instead.

    Args:
        parent: the cell whose incarnation this is.
        actor: the instance, which holds the strategy.
        tasks: the incarnation's nursery.
    """

    def __init__(self, parent: "Cell[Any]", actor: "Actor[Any]", tasks: trio.Nursery) -> None:
        self._parent = parent
        self._actor = actor
        self._tasks = tasks
        self.living: dict[str, Cell[Any]] = {}
        self._nursery: trio.Nursery | None = None
        self._unstarted: list[Cell[Any]] = []
        self._release = trio.Event()
        self._closed = False
        self._window: RestartWindow | None = None
        self._history: deque[RestartRecord] = deque()
        self._groups = Regrouping(f"{parent.path} regrouping", self.living, tasks)

    @property
    def strategy(self) -> SupervisorStrategy:
        """How this family is supervised, as the actor has it now."""
        return self._actor.supervisor_strategy

    def adopt(self, name: str, child: "Cell[Any]") -> None:
        """Start a child's task.

        Raises:
            ActorStopped: the children are being stopped.
            NameTaken: a living child has this name.
        """
        if self._closed:
            raise ActorStopped(self._parent.path)
        if name in self.living:
            raise NameTaken(child.path)
        self.living[name] = child
        if self._nursery is not None:
            self._nursery.start_soon(child.run, name=child.path)
            return
        if not self._unstarted:
            self._tasks.start_soon(self._hold, name=f"{self._parent.path} children")
        self._unstarted.append(child)

    async def _hold(self) -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as self._nursery:
                for child in self._unstarted:
                    self._nursery.start_soon(child.run, name=child.path)
                self._unstarted.clear()
                await self._release.wait()

    async def stop_all(self, reason: str) -> None:
        """Stop the children, the youngest first, each awaited before the next. Every one bounds its own stop."""
        self._closed = True
        self._groups.close()
        if self.strategy.stop_together:
            for child in reversed(self.living.values()):
                child.stop(reason)
        while self.living:
            child = next(reversed(self.living.values()))
            child.stop(reason)
            await child.terminated.wait()
        self._release.set()

    def judge(self, child: "Cell[Any]", failure: Exception) -> Verdict:
        """Decide what becomes of a child that has failed."""
        if self._closed:
            verdict = Verdict(Directive.STOP, "its parent is stopping", failure)
        else:
            verdict = self._rule(child, failure)
        _log.judged(child.path, verdict.directive, failure)
        return verdict

    def judge_ended(self, child: "Cell[Any]", reason: str) -> Verdict:
        """Decide what becomes of a permanent child that stopped itself."""
        if self._closed:
            return Verdict(Directive.STOP, reason)
        return self._restart(child, ActorStopped(child.path))

    def child_gone(self, child: "Cell[Any]") -> None:
        """A child has stopped for good."""
        self.living.pop(child.spec.id, None)
        self._groups.forget(child)
        others = (cell.spec.significant for cell in self.living.values())
        if not self._closed and self.strategy.done(child.spec.significant, others):
            self._parent.stop("its significant children have stopped", by_itself=True)

    def _rule(self, child: "Cell[Any]", failure: Exception) -> Verdict:
        directive = _decide(self.strategy, failure)
        if directive is Directive.ESCALATE:
            escalated = ChildEscalated(child.path)
            escalated.__cause__ = failure
            return Verdict(directive, "escalated", failure, escalated)
        if directive is Directive.RESTART:
            return self._restart(child, failure)
        verdict = Verdict(directive, "failed", failure)
        if directive is Directive.STOP:
            self._groups.stop(child, self._concerned(child), verdict)
        return verdict

    def _concerned(self, child: "Cell[Any]") -> "list[Cell[Any]]":
        return self.strategy.affected(list(self.living.values()), child)

    def _restart(self, child: "Cell[Any]", failure: Exception) -> Verdict:
        pending = self._groups.joined(child, failure)
        if pending is not None:
            return pending
        if child.spec.restart is Restart.TEMPORARY:
            return Verdict(Directive.STOP, "failed, and it is temporary", failure)
        if not self._admit(child, failure):
            return Verdict(Directive.ESCALATE, "the supervisor gave up", failure, self._gave_up(child, failure))
        verdict = Verdict(Directive.RESTART, "failed", failure, delay=self._delay())
        return self._groups.restart(child, self._concerned(child), verdict)

    def _admit(self, child: "Cell[Any]", failure: Exception) -> bool:
        if self._window is None:
            self._window = RestartWindow(self.strategy.max_restarts, self.strategy.within)
        now = trio.current_time()
        admitted = self._window.admit(now)
        while len(self._history) > self._window.count - admitted:
            self._history.popleft()
        if admitted:
            self._history.append(RestartRecord(now, child.path, repr(failure)))
        return admitted

    def _gave_up(self, child: "Cell[Any]", failure: Exception) -> SupervisorGaveUp:
        strategy, history = self.strategy, tuple(self._history)
        error = SupervisorGaveUp(self._parent.path, child.path, strategy.max_restarts, strategy.within, history)
        error.__cause__ = failure
        return error

    def _delay(self) -> float:
        backoff = self.strategy.backoff
        if backoff is None or self._window is None:
            return 0.0
        return backoff.delay(self._window.count - 1, self._parent.system.random.random())


def _decide(strategy: SupervisorStrategy, failure: Exception) -> Directive:
    # The most severe directive among the leaves of a group wins. A decider that raises has decided nothing.
    try:
        decided = [strategy.decider(leaf) for leaf in leaves(failure) if isinstance(leaf, Exception)]
        return max(decided, key=lambda directive: directive.value)
    except Exception:
        return Directive.ESCALATE
