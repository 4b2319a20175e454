"""Which clock the scenarios are timed with."""

import time
from collections.abc import Callable

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}
_chosen: list[Callable[[], float]] = [time.perf_counter]


def use(name: str) -> None:
    """Time with the wall clock, or with this process's processor time, which other processes do not disturb."""
    _chosen[0] = CLOCKS[name]


def now() -> float:
    return _chosen[0]()
