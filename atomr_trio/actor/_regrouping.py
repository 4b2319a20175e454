"""Restarts of several siblings: all that a failure concerns go down, the youngest first, and come up in order."""

from typing import TYPE_CHECKING, Any

import trio
from attrs import evolve

from ._supervision import Directive, Restart
from ._verdict import Verdict

if TYPE_CHECKING:
    from ._cell import Cell

__all__ = ["Regrouping"]


class Regrouping:
    """The one task that takes siblings down and lets them up again, however many failures overlap.

    Each child under restart waits at a gate of its own. After every step the task looks afresh at what is to be done:
    who is failing, who has yet to be told to go down, whose turn to start it is. A failure meanwhile only adds to it.

    A child that restarts alone needs no task: it pauses by itself. When a group takes it in before it has started, it
    comes to a gate like the others, and the group waits for what is left of its pause.

    Args:
        name: the task's.
        living: the children by name, in start order.
        tasks: the nursery that the task runs in.
    """

    def __init__(self, name: str, living: "dict[str, Cell[Any]]", tasks: trio.Nursery) -> None:
        self._name = name
        self._living = living
        self._tasks = tasks
        self._gates: dict[Cell[Any], trio.Event] = {}
        self._untold: dict[Cell[Any], Verdict] = {}
        self._falling: list[Cell[Any]] = []
        self._starting: Cell[Any] | None = None
        self._not_before = 0.0
        self._news = trio.Event()
        self._is_running = False
        self._is_closed = False

    def stop(self, failed: "Cell[Any]", group: "list[Cell[Any]]", verdict: Verdict) -> None:
        """Stop the others of the group; the failed one, which is a member, stops by itself."""
        for cell in group:
            if self._gates.pop(cell, None) is None:
                self._tell(cell, verdict)
            else:
                # Nobody opens its gate any more: it stops in its turn, also when it is down already.
                self._untold[cell] = verdict
        self._falls(failed)

    def restart(self, failed: "Cell[Any]", group: "list[Cell[Any]]", verdict: Verdict) -> Verdict:
        """Restart the group; returns what becomes of the failed member. Temporary ones are stopped instead."""
        if len(group) == 1:
            return verdict
        self._not_before = max(self._not_before, trio.current_time() + verdict.delay)
        own = self._gated(failed, verdict)
        for cell in group:
            if cell.spec.restart is Restart.TEMPORARY and cell is not failed:
                self._tell(cell, Verdict(Directive.STOP, verdict.reason))
            elif cell not in self._gates:
                self._tell(cell, self._gated(cell, verdict))
        self._falls(failed)
        return own

    def joined(self, child: "Cell[Any]", failure: Exception) -> Verdict | None:
        """Return what becomes of a child that fails while it is to restart or to stop for another one: just that."""
        pending = self._untold.get(child)
        if pending is not None and pending.directive is Directive.STOP:
            self._falls(child)
            return evolve(pending, failure=failure)
        gate = self._gates.get(child)
        if gate is None:
            return None
        self._falls(child)
        return Verdict(Directive.RESTART, "failed", failure, gate=gate)

    def forget(self, child: "Cell[Any]") -> None:
        """A child is gone for good."""
        self._gates.pop(child, None)
        self._untold.pop(child, None)

    def close(self) -> None:
        """Begin nothing any more: all children are being stopped."""
        self._is_closed = True

    def _gated(self, cell: "Cell[Any]", verdict: Verdict) -> Verdict:
        gate = self._gates[cell] = trio.Event()
        return evolve(verdict, gate=gate, delay=0.0)

    def _tell(self, cell: "Cell[Any]", verdict: Verdict) -> None:
        # One whose start is being waited for would hold everybody up: its start is cut short. One that is going down
        # by itself, or is down, has no turn to await, and might start meanwhile.
        if cell is self._starting or cell.is_resting:
            cell.regroup(verdict)
            self._falls(cell)
        else:
            self._untold[cell] = verdict

    def _falls(self, failed: "Cell[Any]") -> None:
        self._untold.pop(failed, None)
        self._falling.append(failed)
        self._news.set()
        if not self._is_running:
            self._is_running = True
            self._tasks.start_soon(self._run, name=self._name)

    async def _run(self) -> None:
        try:
            while not self._is_closed and (self._falling or self._untold or self._gates):
                await self._step()
        finally:
            self._is_running = False

    async def _step(self) -> None:
        if self._falling:
            fallen = self._falling.pop(0)
            await fallen.wait_down()
            if fallen in self._gates:
                self._not_before = max(self._not_before, fallen.pause_ends)
        elif self._untold:
            youngest = next(cell for cell in reversed(self._living.values()) if cell in self._untold)
            youngest.regroup(self._untold.pop(youngest))
            await youngest.wait_down()
        elif trio.current_time() < self._not_before:
            self._news = trio.Event()
            with trio.move_on_at(self._not_before):
                await self._news.wait()
        else:
            self._starting = oldest = next(cell for cell in self._living.values() if cell in self._gates)
            self._gates.pop(oldest).set()
            await oldest.wait_up()
            self._starting = None
