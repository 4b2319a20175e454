"""Schedules that are a function of a seed.

Trio runs the tasks that are ready in an order of its own choosing, and keeps two private things for those who must
choose it instead: a switch that sorts each batch before it is shuffled, and the random source of that shuffle. They
are borrowed for the length of one run and given back. ``hypothesis`` turns the same switch on for good and reseeds the
same source to a constant in each example; a source of our own is beyond its reach.
"""

# pyright: reportPrivateUsage=false

import random
import threading
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar, TypeVarTuple, Unpack, cast

import trio
from trio._core import _run as _trio_run
from trio.abc import Clock, Instrument
from trio.testing import MockClock

R = TypeVar("R")
Ts = TypeVarTuple("Ts")

__all__ = ["run_seeded", "seeded_schedule"]

_SWITCH = "_ALLOW_DETERMINISTIC_SCHEDULING"
_SOURCE = "_r"

# The two are global to the process: a second run, in another thread, would draw from the first one's source.
_borrowed = threading.Lock()


@contextmanager
def seeded_schedule(seed: int) -> Generator[None]:
    """Make the schedule of a ``trio.run`` inside the block a function of ``seed``.

    Raises:
        RuntimeError: this version of trio schedules in another way, or another thread is in such a block.
    """
    internals = cast("Any", _trio_run)
    if not (isinstance(getattr(internals, _SWITCH, None), bool) and hasattr(getattr(internals, _SOURCE, None), "seed")):
        raise RuntimeError(f"trio {trio.__version__} schedules in a way that cannot be seeded from here")
    if not _borrowed.acquire(blocking=False):
        raise RuntimeError("one seeded schedule at a time: another thread runs one")
    before = getattr(internals, _SWITCH), getattr(internals, _SOURCE)
    try:
        setattr(internals, _SWITCH, True)
        setattr(internals, _SOURCE, random.Random(seed))
        yield
    finally:
        setattr(internals, _SWITCH, before[0])
        setattr(internals, _SOURCE, before[1])
        _borrowed.release()


def run_seeded(
    seed: int,
    async_fn: Callable[[Unpack[Ts]], Awaitable[R]],
    *args: *Ts,
    clock: Clock | None = None,
    instruments: Sequence[Instrument] = (),
) -> R:
    """Run ``async_fn(*args)`` as ``trio.run`` does, in an order of tasks that depends on the seed alone.

    The same seed gives the same interleaving, in this process and in another one, as long as the code under test
    reads no wall clock, no threads, no sockets and no order of a set; other seeds give other interleavings.

    Args:
        seed: of the schedule.
        async_fn: what to run.
        args: its arguments.
        clock: without one, a ``MockClock`` that jumps ahead whenever every task waits.
        instruments: handed on to ``trio.run``.

    Raises:
        RuntimeError: this version of trio cannot be seeded, or another thread is in a seeded run.
        Exception: whatever ``async_fn`` raises.
    """
    with seeded_schedule(seed):
        clock = MockClock(autojump_threshold=0) if clock is None else clock
        return trio.run(async_fn, *args, clock=clock, instruments=instruments)
