"""The orderly end of a system: named phases in order, the tasks of a phase together, each with a deadline."""

import logging
from collections.abc import Awaitable, Callable

import trio
from attrs import define, field, frozen, validators

from ._errors import ShutdownUnderWay
from ._failures import attempt

__all__ = ["DEFAULT_PHASES", "CoordinatedShutdown", "Phase", "ShutdownFault", "ShutdownPlan", "ShutdownTask"]

log = logging.getLogger("atomr_trio.actor")


@frozen
class Phase:
    """A step of the shutdown.

    Args:
        name: what tasks are registered under.
        timeout: seconds that a task of it gets that names none of its own.
    """

    name: str
    timeout: float = field(default=5.0, validator=validators.gt(0))


DEFAULT_PHASES = (Phase("unbind"), Phase("drain"), Phase("stop_actors"), Phase("close"))
"""Take nothing new; finish what is under way; stop the actors, the youngest first; close what they used."""


@frozen(eq=False)
class ShutdownTask:
    """What is to be done in a phase.

    Args:
        phase: the phase's name.
        name: its own, for logs and faults.
        run: an async function without arguments.
        timeout: seconds after which it is cancelled.
    """

    phase: str
    name: str
    run: Callable[[], Awaitable[object]]
    timeout: float


@frozen
class ShutdownFault:
    """A ``task`` of a ``phase`` that did not do its work.

    It raised ``failure``; or ``failure`` is None, and it was cancelled at its deadline.
    """

    phase: str
    task: str
    failure: Exception | None


def _named_apart(_plan: object, _attribute: object, phases: tuple[Phase, ...]) -> None:
    if len({phase.name for phase in phases}) < len(phases):
        raise ValueError("the names of the phases must differ")


@define
class ShutdownPlan:
    """Which tasks come when. Pure: whoever performs them calls ``advance`` until it returns None.

    Args:
        phases: in their order.

    Raises:
        ValueError: two ``phases`` have one name.
    """

    phases: tuple[Phase, ...] = field(validator=_named_apart)
    _tasks: dict[ShutdownTask, None] = field(factory=dict[ShutdownTask, None], init=False)
    _begun: int = field(default=0, init=False)

    def has_begun(self, phase: str) -> bool:
        """Whether it is too late for tasks of this phase.

        Raises:
            ValueError: there is no phase of this name.
        """
        return self._index(phase) < self._begun

    def add(self, phase: str, name: str, run: Callable[[], Awaitable[object]], timeout: float | None) -> ShutdownTask:
        """Enter a task."""
        default = self.phases[self._index(phase)].timeout
        task = ShutdownTask(phase, name, run, default if timeout is None else timeout)
        self._tasks[task] = None
        return task

    def remove(self, task: ShutdownTask) -> None:
        """Strike a task out, if it is there."""
        self._tasks.pop(task, None)

    def advance(self) -> tuple[Phase, tuple[ShutdownTask, ...]] | None:
        """Begin the next phase and return its tasks in the order in which they were entered; None after the last."""
        if self._begun == len(self.phases):
            return None
        phase = self.phases[self._begun]
        self._begun += 1
        return phase, tuple(task for task in self._tasks if task.phase == phase.name)

    def skip_rest(self) -> None:
        """Let no further phase begin."""
        self._begun = len(self.phases)

    def _index(self, name: str) -> int:
        names = [phase.name for phase in self.phases]
        if name not in names:
            raise ValueError(f"there is no shutdown phase {name!r}; there are {', '.join(names)}")
        return names.index(name)


class CoordinatedShutdown:
    """Performs the phases once, in order; what fails or overruns is logged and does not hold up the rest.

    A system has one as ``system.shutdown``; leaving the system's block runs it. The idea is Akka's. It ends within the
    sum over the phases of the longest timeout among their tasks, provided that no task shields itself from
    cancellation.
    """

    def __init__(self, name: str, phases: tuple[Phase, ...] = DEFAULT_PHASES) -> None:
        self.name = name
        self.reason: str | None = None
        self.phase: str | None = None
        self._plan = ShutdownPlan(phases)
        self._faults: list[ShutdownFault] = []
        self._begun = trio.Event()
        self._done = trio.Event()
        self._current: trio.CancelScope | None = None

    @property
    def has_begun(self) -> bool:
        """Whether ``begin`` or ``run`` was called."""
        return self._begun.is_set()

    @property
    def is_done(self) -> bool:
        """Whether the last phase is through, or was skipped."""
        return self._done.is_set()

    @property
    def faults(self) -> tuple[ShutdownFault, ...]:
        """What went wrong so far."""
        return tuple(self._faults)

    def add_task(
        self, phase: str, name: str, run: Callable[[], Awaitable[object]], *, timeout: float | None = None
    ) -> ShutdownTask:
        """Have ``run`` awaited in a phase, at the same time as the phase's other tasks.

        Args:
            phase: unbind, drain, stop_actors or close, unless the system was made with phases of its own.
            name: for logs and faults.
            run: an async function without arguments.
            timeout: seconds after which it is cancelled; the phase's timeout by default.

        Raises:
            ValueError: there is no such phase.
            ShutdownUnderWay: the phase has begun, or is over.
        """
        if self._plan.has_begun(phase):
            raise ShutdownUnderWay(self.name, phase)
        return self._plan.add(phase, name, run, timeout)

    def remove_task(self, task: ShutdownTask) -> None:
        """Forget a task whose phase has not begun; otherwise, or the second time, this does nothing."""
        self._plan.remove(task)

    def begin(self, reason: str) -> None:
        """Begin to shut down, without waiting. Does nothing the second time."""
        if not self.has_begun:
            self.reason = reason
            log.info("%s shuts down: %s", self.name, reason)
            self._begun.set()

    async def run(self, reason: str) -> None:
        """Shut down, or join the shutdown that is under way, and wait for its end.

        Cancelling the caller ends its wait, not the shutdown.
        """
        self.begin(reason)
        await self._done.wait()

    def abort(self, reason: str) -> None:
        """Cancel the tasks of the current phase and skip the later ones, now or, if it has not begun, once it would."""
        self._plan.skip_rest()
        if self._current is not None:
            self._current.cancel(reason=reason)
        if not self.is_done:
            log.warning("the shutdown of %s is aborted: %s", self.name, reason)

    async def drive(self) -> None:
        """Wait for ``begin`` and perform the phases; the system runs this once, as a task of its own."""
        # The end of the system must not depend on who asked for it or on what is cancelled around it. `begin` is
        # called on leaving the system's block, and after it every wait has its task's deadline.
        try:
            with trio.CancelScope(shield=True):
                await self._begun.wait()
                while (step := self._plan.advance()) is not None:
                    await self._perform(*step)
        finally:
            self.phase = None
            self._done.set()

    async def _perform(self, phase: Phase, tasks: tuple[ShutdownTask, ...]) -> None:
        self.phase = phase.name
        with trio.CancelScope() as self._current:
            async with trio.open_nursery() as nursery:
                for task in tasks:
                    nursery.start_soon(self._attempt, task, name=f"{self.name} {phase.name}: {task.name}")
        self._current = None

    async def _attempt(self, task: ShutdownTask) -> None:
        with trio.move_on_after(task.timeout) as deadline:
            try:
                await attempt(task.run)
            except Exception as failure:
                log.exception("%s, phase %s: %s failed", self.name, task.phase, task.name)
                self._faults.append(ShutdownFault(task.phase, task.name, failure))
        if deadline.cancelled_caught:
            log.error("%s, phase %s: %s took more than %gs", self.name, task.phase, task.name, task.timeout)
            self._faults.append(ShutdownFault(task.phase, task.name, None))
