"""A cell's children: started in order, shielded from above, stopped one by one in reverse."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from ._errors import ActorStopped, ChildEscalated, NameTaken, SupervisorGaveUp
from ._failures import leaves
from ._supervision import Directive, RestartWindow, SupervisorStrategy
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

    def __init__(self, path: str, living: "dict[str, Cell[Any]]", tasks: trio.Nursery) -> None:
        self._path = path
        self._living = living
        self._tasks = tasks
        self._nursery: trio.Nursery | None = None
        self._unstarted: list[Callable[[], Awaitable[None]]] = []
        self._release = trio.Event()
        self._closed = False
        self._window: RestartWindow | None = None

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
        if directive is Directive.RESTART and not self._admit(strategy, now):
            gave_up = SupervisorGaveUp(self._path, child.path, strategy.max_restarts, strategy.within)
            gave_up.__cause__ = failure
            return Verdict(Directive.ESCALATE, "the supervisor gave up", failure, gave_up)
        return Verdict(directive, "failed", failure)

    def _admit(self, strategy: SupervisorStrategy, now: float) -> bool:
        if self._window is None:
            self._window = RestartWindow(strategy.max_restarts, strategy.within)
        return self._window.admit(now)


def _decide(strategy: SupervisorStrategy, failure: Exception) -> Directive:
    # The most severe directive among the leaves of a group wins. A decider that raises has decided nothing.
    try:
        decided = [strategy.decider(leaf) for leaf in leaves(failure) if isinstance(leaf, Exception)]
        return max(decided, key=lambda directive: directive.value)
    except Exception:
        return Directive.ESCALATE
