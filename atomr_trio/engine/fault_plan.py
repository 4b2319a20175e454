"""Faults that a device process is told to have, at which of its steps: pure decisions of a seed.

For tests and benchmarks; `injection` carries them out.
"""

import random
from typing import Literal

import msgspec

__all__ = ["FATAL_FAULTS", "DeviceFaultKind", "DeviceFaultPlan", "PlannedFault"]

DeviceFaultKind = Literal["kill", "freeze", "hang", "poison", "oom", "slow", "bug", "torn", "garbage", "duplicate"]
"""What happens at a step.

``kill``: SIGKILL. ``freeze``: SIGSTOP, so that not even heartbeats come. ``hang``: the step never ends. ``poison``:
the device context is lost. ``oom``: the device runs out of memory. ``slow``: the step takes longer. ``bug``: an
exception of Python. ``torn``: half a frame comes, and nothing more. ``garbage``: what comes is no frame. ``duplicate``:
the step's frame comes twice.
"""

FATAL_FAULTS: frozenset[DeviceFaultKind] = frozenset({"kill", "freeze", "hang", "poison", "torn", "garbage"})
"""Those that end the process; what is planned after one of them is for the next process."""


class PlannedFault(msgspec.Struct, frozen=True, array_like=True):
    """One fault: ``step`` counts from 1 in each process; ``seconds`` is what ``slow`` waits."""

    kind: DeviceFaultKind
    step: int
    seconds: float = 0.0


class DeviceFaultPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """So many faults, one after the other, over as many processes as it takes; the same for the same seed.

    Args:
        seed: of everything.
        kinds: each fault is one of these.
        times: faults in all.
        every: steps from one to the next, on average; counted in each process anew.
        seconds: longest pause of ``slow``.

    Raises:
        ValueError: a value is out of its range.
    """

    seed: int
    kinds: tuple[DeviceFaultKind, ...]
    times: int = 1
    every: int = 50
    seconds: float = 1.0

    def __post_init__(self) -> None:
        if not self.kinds or self.times < 0 or self.every < 1 or self.seconds < 0:
            raise ValueError("faults: there must be a kind, and no number may be negative, nor `every` 0")

    def session(self, number: int) -> tuple[PlannedFault, ...]:
        """Return what the ``number``-th process is to have, counted from 0."""
        sessions = self._sessions
        return sessions[number] if number < len(sessions) else ()

    @property
    def _sessions(self) -> list[tuple[PlannedFault, ...]]:
        # Seeded by a string: that is the same in every process, where a hash is not.
        drawn = random.Random(f"device faults {self.seed}")
        sessions: list[list[PlannedFault]] = [[]]
        for _ in range(self.times):
            kind = drawn.choice(self.kinds)
            before = sessions[-1][-1].step if sessions[-1] else 0
            step = before + drawn.randint(1, 2 * self.every - 1)
            sessions[-1].append(PlannedFault(kind, step, drawn.uniform(0, self.seconds) if kind == "slow" else 0.0))
            if kind in FATAL_FAULTS:
                sessions.append([])
        return [tuple(faults) for faults in sessions]
