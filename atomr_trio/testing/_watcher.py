"""The eye on one run of a scenario: counts its checkpoints, cancels it at one of them, and sees how it takes it."""

from collections.abc import Awaitable, Callable
from typing import Any

import outcome
import trio
import trio.testing

from ._leaks import all_tasks, describe_task, leaked_tasks

__all__ = ["Watcher"]

SPINNING = 5_000
"""A cancelled scenario goes round in a circle when it takes so many steps and ten times as many as it has points."""


class Watcher(trio.abc.Instrument):
    """Watches one run.

    Args:
        point: the checkpoint to cancel at, counted from 1; at 0 nothing is cancelled.
        points: how many there are, as far as is known.
        limit: virtual seconds that the scenario may take, and again what it may take to end after its cancellation.
    """

    def __init__(self, point: int, points: int, limit: float) -> None:
        self.points = 0
        self.where = ""
        self.problem: str | None = None
        self.cause: Exception | None = None
        self.caught = False
        self.clock = trio.testing.MockClock(autojump_threshold=0)
        self._point = point
        self._limit = limit
        self._scope = trio.CancelScope()
        self._patience = trio.CancelScope()
        self._living: set[trio.lowlevel.Task] = set()
        self._reason = f"cancelled at checkpoint {point}"
        self._reached: dict[trio.lowlevel.Task, str] = {}
        self._errors_before = 0
        self._steps = 0
        self._most_steps = SPINNING + 10 * points

    def blame(self, problem: str, cause: Exception | None = None) -> None:
        """Say what went wrong; the first word counts, the others follow from it."""
        if self.problem is None:
            self.problem, self.cause = problem, cause

    async def run(self, scenario: Callable[..., Awaitable[object]], *state: Any) -> None:
        """Run the scenario in a task of its own, and judge how it ended."""
        name = getattr(scenario, "__qualname__", repr(scenario))
        before = all_tasks()
        async with trio.open_nursery() as nursery:
            self._patience.deadline = trio.current_time() + self._limit
            nursery.start_soon(self._wait)
            nursery.start_soon(self._play, scenario, state, name=name)
        if leaked_tasks(before):
            await trio.testing.wait_all_tasks_blocked()
        left = "; ".join(describe_task(task) for task in leaked_tasks(before))
        if left:
            self.blame(f"tasks are left: {left}")

    async def _play(self, scenario: Callable[..., Awaitable[object]], state: tuple[Any, ...]) -> None:
        self._living = {trio.lowlevel.current_task()}
        try:
            with self._scope:
                await scenario(*state)
        except Exception as failure:
            self.blame(f"{type(failure).__name__} came out: {failure}", failure)
        finally:
            self._living = set()
            self._patience.cancel(reason="the scenario has ended")
        self.caught = self._scope.cancelled_caught
        if self._reached and not self.caught:
            self._blame_swallower(next(reversed(self._reached)))

    def _left(self) -> str:
        return "; ".join(sorted(describe_task(task) for task in self._living))

    def _blame_swallower(self, task: trio.lowlevel.Task) -> None:
        self.blame(f"its cancellation reached {self._reached[task]}, and was swallowed")

    async def _wait(self) -> None:
        with self._patience:
            await trio.sleep_forever()
        if self._living:
            when = "after it was cancelled" if self._scope.cancel_called else "after its start"
            self.blame(f"still running {self._limit:g}s {when}: {self._left()}")
            self._force()

    def _force(self) -> None:
        # The run has failed and must end: whatever is shielded is not any more.
        self._scope.cancel(reason="the scenario takes too long")
        for task in self._living:
            status: Any = getattr(task, "_cancel_status", None)
            while status is not None:
                status._scope.shield = False
                status = status.parent

    # Called by Trio.

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """A child of a task of the scenario is one too."""
        if task.parent_nursery is not None and task.parent_nursery.parent_task in self._living:
            self._living.add(task)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """It is over with a task; its end is a point to cancel at, too."""
        if task in self._living:
            self._living.remove(task)
            if task in self._reached and _errors_beside(task) == self._errors_before:
                self._blame_swallower(task)
            self._step(task)

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        """Note whom the cancellation reaches."""
        if task in self._living and getattr(_sent(task), "reason", None) == self._reason:
            self._reached[task] = describe_task(task)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Know what a task that was reached adds to the errors of its nursery, if this step is its last."""
        if task in self._reached:
            self._errors_before = _errors_beside(task)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count, and cancel when it is time."""
        if task in self._living:
            self._step(task)

    def _step(self, task: trio.lowlevel.Task) -> None:
        if self._scope.cancel_called:
            self._steps += 1
            if self._steps > self._most_steps:
                self._break_circle(task)
            return
        self.points += 1
        if self.points == self._point:
            self.where = describe_task(task)
            self._patience.deadline = trio.current_time() + self._limit
            self._scope.cancel(reason=self._reason)

    def _break_circle(self, task: trio.lowlevel.Task) -> None:
        # A task that swallows every cancellation gets something else to swallow in its place.
        self.blame(f"goes round in a circle after its cancellation: {self._left()}")
        resumed: Any = task
        if _sent(task) is not None:
            resumed._next_send = outcome.Error(RuntimeError(self.problem))
        if self._steps > 2 * self._most_steps:
            # It swallows that too. A clock that fails takes the whole run down.
            clock: Any = self.clock
            clock.current_time = None


def _errors_beside(task: trio.lowlevel.Task) -> int:
    # A task that lets its cancellation go on ends with an error, and its nursery keeps that.
    errors: Any = getattr(task.parent_nursery, "_pending_excs", ())
    return len(errors)


def _sent(task: trio.lowlevel.Task) -> BaseException | None:
    # What a task is about to be resumed with. Trio shows it to nobody, and nothing else tells that a task was reached.
    result: Any = getattr(task, "_next_send", None)
    return result.error if isinstance(result, outcome.Error) else None
