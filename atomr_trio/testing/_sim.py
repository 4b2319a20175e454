"""Deterministic simulation: a schedule, a clock, a random source and faults that are all functions of one seed."""

import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, NoReturn, TypeVar, cast

import trio
from attrs import define
from trio.testing import MockClock

from atomr_trio.actor import ActorSystem

from ._fault_plan import Odds
from ._faults import SeededFaults
from ._leaks import all_tasks, describe_task
from ._schedule import run_seeded
from ._streams import SimStream, stream_pair
from .history import History

R = TypeVar("R")

__all__ = ["SimWorld", "WorldStuck"]


@define
class WorldStuck(AssertionError):
    """The scenario was not over after ``horizon`` virtual seconds; ``tasks`` says of each task where it waits."""

    horizon: float
    tasks: tuple[str, ...]

    def __str__(self) -> str:
        return f"not over after {self.horizon:g} virtual seconds: " + "; ".join(self.tasks)


class SimWorld:
    """A world in which everything that chance decides is decided by ``seed``; ``run`` lives through one scenario.

    ``random`` draws for the scenario; ``faults`` acts at the fault points of ``system()``; ``history`` is what was
    recorded. Time is virtual, begins at 0 and jumps ahead whenever every task waits. The module ``random`` is seeded
    for the length of the run as well.

    Args:
        seed: of everything.
        odds: how likely faults are at the fault points; without it nothing happens there.
        points: the odds at single points, by their name or a pattern with ``*``.
        horizon: virtual seconds after which a scenario that is not over counts as stuck.
    """

    def __init__(
        self, seed: int, *, odds: Odds | None = None, points: Mapping[str, Odds] | None = None, horizon: float = 1e5
    ) -> None:
        self.seed = seed
        source = random.Random(seed)
        self._schedule_seed, faults_seed, scenario_seed = (source.getrandbits(64) for _ in range(3))
        self.random: random.Random = random.Random(scenario_seed)
        self.faults: SeededFaults = SeededFaults(faults_seed, odds or Odds(), points or {})
        self.history: History = History()
        self.horizon = horizon
        self._clock = MockClock(autojump_threshold=0)
        self._abandoned: list[trio.lowlevel.Task] = []
        self._used = False

    def run(self, scenario: "Callable[[SimWorld], Awaitable[R]]") -> R:
        """Run ``scenario(world)`` and return what it returns.

        Raises:
            RuntimeError: this world has had its run; a new one with the same seed repeats it.
            WorldStuck: the scenario was not over at the horizon.
            BaseException: what the scenario raised. Every exception has a note that says the seed and how to repeat it.
        """
        if self._used:
            raise RuntimeError(f"this world has had its run; SimWorld(seed={self.seed}) is like it")
        self._used = True
        outside = random.getstate()
        random.seed(self.seed)
        try:
            return run_seeded(self._schedule_seed, self._live, scenario, clock=self._clock)
        except BaseException as error:
            # The guard ends the run from inside Trio's loop, which takes that for an error of its own.
            stuck = error.__cause__ if isinstance(error.__cause__, WorldStuck) else None
            name = getattr(scenario, "__qualname__", repr(scenario))
            note = f"This happened under seed {self.seed}; SimWorld(seed={self.seed}).run({name}) repeats it."
            (stuck or error).add_note(note)
            if stuck is not None:
                raise stuck from None
            raise
        finally:
            random.setstate(outside)
            self._bury()

    def _bury(self) -> None:
        # The tasks of a run that was given up, whatever they do about it: the garbage collector, and Trio's nurseries,
        # would complain of them in the middle of something else.
        for nursery in [nursery for task in self._abandoned for nursery in task.child_nurseries]:
            cast("Any", nursery)._children.clear()
        for task in self._abandoned:
            with suppress(Exception):
                task.coro.close()
        self._abandoned.clear()

    async def _live(self, scenario: "Callable[[SimWorld], Awaitable[R]]") -> R:
        trio.lowlevel.spawn_system_task(self._guard, name="guard of the simulated world")
        return await scenario(self)

    async def _guard(self) -> None:
        await trio.sleep(self.horizon)
        tasks = sorted(all_tasks(), key=lambda task: task.name)
        stuck = WorldStuck(self.horizon, tuple(describe_task(task) for task in tasks))
        self._abandoned = tasks

        def give_up(_deadline: float) -> NoReturn:
            raise stuck

        # A cancellation would wait for ever for a task that is stuck under a shield. The clock is asked in any case.
        cast("Any", self._clock).deadline_to_sleep_time = give_up

    @property
    def now(self) -> float:
        """Virtual time in seconds."""
        return trio.current_time()

    def record(self, what: object) -> None:
        """Append to the history; values with a ``repr`` that depends on nothing else make histories comparable."""
        self.history.add(trio.current_time(), what)

    def system(self, name: str = "sim", **options: Any) -> AbstractAsyncContextManager[ActorSystem]:
        """Open an actor system whose jitter and faults are this world's; ``options`` as for ``ActorSystem.create``."""
        return ActorSystem.create(name, seed=self.random.getrandbits(32), faults=self.faults, **options)

    def stream_pair(self, *, max_delay: float = 0.0, tear: float = 0.0) -> tuple[SimStream, SimStream]:
        """Return the two ends of a connection in memory that splits, delays and tears as a network does.

        Args:
            max_delay: seconds that a piece is under way at most.
            tear: chance, at each piece, that the connection breaks: both ends get ``BrokenResourceError``.
        """
        return stream_pair(random.Random(self.random.getrandbits(64)), max_delay, tear)
