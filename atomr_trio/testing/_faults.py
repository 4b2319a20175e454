"""Fault points that do something: by seed, or by a script."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import trio
from attrs import define, field, frozen

from atomr_trio.actor import Faults

from ._fault_plan import Cancel, Crash, Delay, Drop, FaultAction, FaultPlan, Odds

__all__ = ["FaultRecord", "FaultScript", "PlannedFaults", "SeededFaults", "cancellable"]

_block: ContextVar[trio.CancelScope | None] = ContextVar("atomr_trio_cancellable", default=None)


@contextmanager
def cancellable() -> Generator[trio.CancelScope]:
    """A block that a ``Cancel`` fault cancels when it happens in it, or in a task that was started in it.

    The innermost block counts. Around a client's request it stands for a client that goes away; around a whole system
    for an end from outside.
    """
    with trio.CancelScope() as scope:
        token = _block.set(scope)
        try:
            yield scope
        finally:
            _block.reset(token)


@frozen
class FaultRecord:
    """A fault that happened: where, at which visit, and what."""

    point: str
    visit: int
    action: FaultAction


@define(slots=False, eq=False)
class PlannedFaults(Faults, ABC):
    """Carries out what a subclass decides, and keeps a ``journal`` of it.

    Args:
        armed: faults happen; set it to false to let everything pass from now on. Visits are counted in any case.
    """

    armed: bool = field(default=True, kw_only=True)
    journal: list[FaultRecord] = field(factory=list[FaultRecord], init=False)
    _visits: Counter[tuple[str, str]] = field(factory=Counter[tuple[str, str]], init=False)

    @abstractmethod
    def plan(self, point: str, visit: int) -> FaultAction | None:
        """Decide what happens when ``point`` is reached for the ``visit``-th time, counted from 1."""

    @abstractmethod
    def plan_drop(self, point: str, visit: int) -> bool:
        """Decide whether the ``visit``-th thing sent at ``point`` gets lost, counted apart from ``reach``."""

    async def reach(self, point: str) -> None:
        """Let happen at the point what is planned.

        Raises:
            Exception: what a ``Crash`` says.
        """
        visit = self._count("reach", point)
        action = self.plan(point, visit) if self.armed else None
        if isinstance(action, Cancel):
            await self._cancel(point, visit)
        elif isinstance(action, Crash | Delay):
            self._note(point, visit, action)
            if isinstance(action, Crash):
                raise action.exception(point, visit)
            await trio.sleep(action.seconds)

    async def _cancel(self, point: str, visit: int) -> None:
        scope = _block.get()
        if scope is not None:
            self._note(point, visit, Cancel())
            scope.cancel(reason=f"injected at {point}, visit {visit}")
            await trio.lowlevel.checkpoint()

    def drops(self, point: str) -> bool:
        """Say whether what is about to be sent at the point gets lost."""
        visit = self._count("drops", point)
        lost = self.armed and self.plan_drop(point, visit)
        if lost:
            self._note(point, visit, Drop())
        return lost

    def _count(self, kind: str, point: str) -> int:
        self._visits[kind, point] += 1
        return self._visits[kind, point]

    def _note(self, point: str, visit: int, action: FaultAction) -> None:
        self.journal.append(FaultRecord(point, visit, action))


@define(slots=False, eq=False)
class SeededFaults(PlannedFaults):
    """Faults by chance, the same for the same seed: a ``FaultPlan`` carried out.

    Args:
        seed: of everything.
        default: the odds at points that ``points`` does not name.
        points: odds by the name of a point, or by a pattern with ``*``; the first that matches counts.
    """

    seed: int
    default: Odds = field(factory=Odds)
    points: Mapping[str, Odds] = field(factory=dict[str, Odds])
    _plan: FaultPlan = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._plan = FaultPlan(self.seed, self.default, self.points)

    def plan(self, point: str, visit: int) -> FaultAction | None:
        """Decide by the seed, the point and the visit."""
        return self._plan.at(point, visit)

    def plan_drop(self, point: str, visit: int) -> bool:
        """Decide by the seed, the point and the visit."""
        return self._plan.drops(point, visit)


@define(slots=False, eq=False)
class FaultScript(PlannedFaults):
    """Exactly these faults: ``FaultScript({("ledger.write", 3): Crash(OSError("disk full"))})``.

    Args:
        script: what happens at a visit ``(point, n)``, counted from 1, or at every visit of a ``point``.
    """

    script: Mapping[str | tuple[str, int], FaultAction] = field()

    @property
    def unused(self) -> tuple[str | tuple[str, int], ...]:
        """The entries that never happened: a scenario that does not come there tests nothing."""
        happened = {key for done in self.journal for key in (done.point, (done.point, done.visit))}
        return tuple(key for key in self.script if key not in happened)

    def _entry(self, point: str, visit: int) -> FaultAction | None:
        return self.script.get((point, visit), self.script.get(point))

    def plan(self, point: str, visit: int) -> FaultAction | None:
        """Look it up; a ``Drop`` is none of it."""
        return self._entry(point, visit)

    def plan_drop(self, point: str, visit: int) -> bool:
        """Look it up."""
        return isinstance(self._entry(point, visit), Drop)
