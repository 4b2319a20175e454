# pyright: basic
"""Measures how fast memory is copied; `python -m atomr_trio.cli._bench_copy` prints bytes a second.

A copy of n bytes moves 2n, one read and one write each. A program of its own, since the device's memory cannot be had
twice: it imports jax and leaves.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

__all__ = ["main"]

# Far more than any cache holds.
_BYTES = 256 * 2**20
_REPEATS = 9
# So many in flight at once: what a launch costs is not the memory's.
_LAUNCHES = 10


def main() -> None:
    """Measure the default device of jax."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    copy, copies = (_host_copy(), 1) if jax.default_backend() == "cpu" else (_device_copies(), _LAUNCHES)
    print(2 * copies * _BYTES / min(_seconds(copy) for _ in range(_REPEATS)))  # noqa: T201


def _seconds(copy: Callable[[], object]) -> float:
    started = perf_counter()
    copy()
    return perf_counter() - started


def _host_copy() -> Callable[[], object]:
    """A copy by all cores at once: one alone does not fill the memory's channels."""
    import numpy as np

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ThreadPoolExecutor(cores)
    source, target = np.ones(_BYTES // 8), np.zeros(_BYTES // 8)
    parts = list(zip(np.array_split(target, cores), np.array_split(source, cores), strict=True))
    return lambda: list(pool.map(lambda part: np.copyto(*part), parts))


def _device_copies() -> Callable[[], object]:
    import jax
    import jax.numpy as jnp

    add = jax.jit(lambda x: x + 1, donate_argnums=0)

    def copies() -> None:
        nonlocal values
        for _ in range(_LAUNCHES):
            values = add(values)
        values.block_until_ready()

    values = jnp.zeros(_BYTES // 4, jnp.float32)
    copies()
    return copies


if __name__ == "__main__":
    main()
