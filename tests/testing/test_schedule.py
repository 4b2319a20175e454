"""The same seed, the same interleaving; and a canary for the internals of trio that this stands on."""

import os
import random
import subprocess
import sys
import threading

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio._core import _run

from atomr_trio.testing import run_seeded, seeded_schedule

SCRIPT = """
import trio
from atomr_trio.testing import run_seeded

async def main():
    order = []

    async def worker(name):
        for step in range(4):
            await trio.sleep(step % 2 * (name % 2))
            order.append(name)

    async with trio.open_nursery() as nursery:
        for name in range(8):
            nursery.start_soon(worker, name)
    return order

print(run_seeded({seed}, main))
"""


async def interleaving():
    order = []

    async def worker(name):
        for step in range(4):
            await trio.sleep(step % 2 * (name % 2))
            order.append(name)

    async with trio.open_nursery() as nursery:
        for name in range(8):
            nursery.start_soon(worker, name)
    return order


@given(seed=st.integers())
def test_one_seed_is_one_interleaving(seed):
    assert run_seeded(seed, interleaving) == run_seeded(seed, interleaving)


def test_seeds_really_differ():
    """The canary: if trio renames or stops to use what is seeded, all of these are one, or each is new."""
    orders = [tuple(run_seeded(seed, interleaving)) for seed in range(50)]
    assert len(set(orders)) > 45
    assert orders == [tuple(run_seeded(seed, interleaving)) for seed in range(50)]


@pytest.mark.parametrize("hash_seed", ["0", "1", "77"])
def test_another_process_has_the_same_interleaving(hash_seed):
    # No hypothesis there, whose plugin turns deterministic scheduling on for the whole process.
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(seed=5)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )
    assert ran.stdout.strip() == str(run_seeded(5, interleaving))


def test_trios_internals_are_given_back():
    before = _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r, _run._r.getstate()

    async def fails():
        assert _run._r is not before[1]
        raise KeyError("oops")

    with pytest.raises(KeyError):
        run_seeded(1, fails)
    assert (_run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r, _run._r.getstate()) == before


@pytest.mark.parametrize("gone", ["_ALLOW_DETERMINISTIC_SCHEDULING", "_r"])
def test_a_trio_that_schedules_otherwise_is_refused(monkeypatch, gone):
    monkeypatch.delattr(_run, gone)
    with pytest.raises(RuntimeError, match="cannot be seeded"):
        run_seeded(1, interleaving)


def test_a_second_thread_is_refused_and_then_admitted():
    refused = []

    def other():
        try:
            run_seeded(2, interleaving)
        except RuntimeError as error:
            refused.append(str(error))

    with seeded_schedule(1):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert refused == ["one seeded schedule at a time: another thread runs one"]
    assert run_seeded(2, interleaving) == run_seeded(2, interleaving)


def test_virtual_time_is_free_and_a_clock_may_be_given():
    async def sleeper():
        await trio.sleep(3600)
        return trio.current_time()

    assert run_seeded(1, sleeper) == 3600
    assert run_seeded(1, sleeper, clock=trio.testing.MockClock(rate=1e9)) >= 3600


def test_the_global_source_is_left_alone():
    state = random.getstate()
    run_seeded(3, interleaving)
    assert random.getstate() == state
