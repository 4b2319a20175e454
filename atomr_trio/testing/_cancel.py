"""Cancelling a scenario everywhere: at each of its checkpoints in turn."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, overload

import trio
from attrs import define, frozen

from atomr_trio.actor import leaves

from ._schedule import run_seeded
from ._watcher import Watcher

S = TypeVar("S")

__all__ = ["CancelReport", "CancelViolation", "cancel_everywhere"]


@frozen
class CancelReport:
    """What ``cancel_everywhere`` did.

    Args:
        points: checkpoints of the undisturbed scenario.
        cancelled: runs that ended by their cancellation.
        completed: runs that came to their own end although they were cancelled: nothing was left to wait for.
    """

    points: int
    cancelled: int
    completed: int


@define
class CancelViolation(AssertionError):
    """A scenario did not end as it should when it was cancelled.

    Args:
        point: the checkpoint at which it was cancelled; 0 if it was not.
        points: how many checkpoints the undisturbed scenario has.
        where: the task that had just been suspended there, and in which line.
        problem: what went wrong. An exception, of the scenario or of the check, is the ``__cause__``.
        seed: of the schedule.
    """

    point: int
    points: int
    where: str
    problem: str
    seed: int

    def __str__(self) -> str:
        if self.point == 0:
            return f"without any cancellation: {self.problem}"
        return (
            f"cancelled at checkpoint {self.point} of {self.points}, {self.where}: {self.problem}\n"
            f"to replay it: only={self.point}, seed={self.seed}"
        )


@overload
def cancel_everywhere(
    scenario: Callable[[], Awaitable[object]],
    *,
    check: Callable[[], object] | None = None,
    only: int | None = None,
    seed: int = 0,
    limit: float = 300.0,
) -> CancelReport: ...


@overload
def cancel_everywhere(
    scenario: Callable[[S], Awaitable[object]],
    *,
    fresh: Callable[[], S],
    check: Callable[[S], object] | None = None,
    only: int | None = None,
    seed: int = 0,
    limit: float = 300.0,
) -> CancelReport: ...


def cancel_everywhere(
    scenario: Callable[..., Awaitable[object]],
    *,
    fresh: Callable[[], Any] | None = None,
    check: Callable[..., object] | None = None,
    only: int | None = None,
    seed: int = 0,
    limit: float = 300.0,
) -> CancelReport:
    """Run a scenario, then run it anew for each of its checkpoints and cancel it there.

    A checkpoint is counted whenever the scenario's task, or a task below it, is suspended, and when a task below it
    ends. Each run is a ``trio.run`` of its own in virtual time, on the same schedule, so call this from a plain test.
    The scenario should be deterministic: no threads, no sockets, no wall clock.

    Of every run it is demanded that nothing comes out of the scenario, that a cancellation which reached one of its
    tasks was not swallowed, that it ends within ``limit``, that no task is left, and that ``check`` passes.

    Args:
        scenario: what to run.
        fresh: makes the state of one run, which is handed to ``scenario`` and to ``check``.
        check: called after each run; raises if what the scenario left behind is wrong.
        only: cancel at this checkpoint alone, counted from 1.
        seed: of the schedule.
        limit: virtual seconds that a scenario may take, and again what it may take to end after its cancellation.

    Raises:
        CancelViolation: something else happened.
        ValueError: the scenario has no checkpoint ``only``.
    """
    fuzz = _Fuzz(scenario, fresh, check, seed, limit)
    points = fuzz.run(0).points
    if only is not None and not 1 <= only <= points:
        raise ValueError(f"the scenario has checkpoints 1 to {points}, not {only}")
    runs = [fuzz.run(point, points) for point in (range(1, points + 1) if only is None else (only,))]
    cancelled = sum(watcher.caught for watcher in runs)
    return CancelReport(points, cancelled, len(runs) - cancelled)


@frozen
class _Fuzz:
    scenario: Callable[..., Awaitable[object]]
    fresh: Callable[[], Any] | None
    check: Callable[..., object] | None
    seed: int
    limit: float

    def run(self, point: int, points: int = 0) -> Watcher:
        """Run once, cancelled at ``point`` unless that is 0."""
        state = () if self.fresh is None else (self.fresh(),)
        watcher = Watcher(point, points, self.limit)
        try:
            run_seeded(self.seed, watcher.run, self.scenario, *state, clock=watcher.clock, instruments=[watcher])
        except trio.TrioInternalError as crash:
            # The watcher's own doing, when nothing else ends the run.
            watcher.blame(f"the run broke down: {crash}", crash)
        except BaseExceptionGroup as group:
            # The scenario's own errors are caught; what comes here is an interrupt, and wants to be seen as one.
            raise next((leaf for leaf in leaves(group) if not isinstance(leaf, Exception)), group) from None
        if self.check is not None and watcher.problem is None:
            try:
                self.check(*state)
            except Exception as failure:
                watcher.blame(f"the check failed: {type(failure).__name__}: {failure}", failure)
        if watcher.problem is not None:
            raise CancelViolation(point, points, watcher.where, watcher.problem, self.seed) from watcher.cause
        return watcher
