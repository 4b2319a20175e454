"""Finds what holds the loop: while one task computes without a checkpoint, nobody else gets a turn."""

import time
from collections.abc import Generator
from contextlib import contextmanager

import trio

from . import _log

__all__ = ["watching_steps"]

QUIET = 1.0
"""Seconds between two warnings; what comes in between is counted."""


class _StepWatch(trio.abc.Instrument):
    """Times the steps of the tasks below one nursery, from checkpoint to checkpoint.

    One hook per step: what has passed since the step before, or since the wait for I/O, belongs to this one. The time
    is the machine's and not Trio's, because that is what all others wait for, whatever clock drives the system.
    """

    def __init__(self, nursery: trio.Nursery, threshold: float) -> None:
        self._nursery = nursery
        self._threshold = threshold
        self._since = time.perf_counter()
        self._quiet_until = 0.0
        self._unsaid = 0

    def after_io_wait(self, timeout: float) -> None:
        self._since = time.perf_counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        now = time.perf_counter()
        if now - self._since > self._threshold and self._is_below(task):
            self._warn(task.name, now - self._since, now)
        self._since = now

    def _is_below(self, task: trio.lowlevel.Task) -> bool:
        nursery = task.parent_nursery
        while nursery is not None and nursery is not self._nursery:
            nursery = nursery.parent_task.parent_nursery
        return nursery is not None

    def _warn(self, name: str, held: float, now: float) -> None:
        if now < self._quiet_until:
            self._unsaid += 1
            return
        _log.slow_step(name, held, self._unsaid)
        self._quiet_until, self._unsaid = now + QUIET, 0


@contextmanager
def watching_steps(nursery: trio.Nursery, threshold: float | None) -> Generator[None]:
    """Log a warning for each task below ``nursery`` that goes longer without a checkpoint; ``None``: do nothing."""
    if threshold is None:
        yield
        return
    watch = _StepWatch(nursery, threshold)
    trio.lowlevel.add_instrument(watch)
    try:
        yield
    finally:
        trio.lowlevel.remove_instrument(watch)
