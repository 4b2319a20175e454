"""The compiled step programs: forward, sampling and packing in one call, with the cache donated."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from attrs import define, field

from .buckets import ProgramKey, best_cover
from .config import ModelConfig
from .model import KV, forward, logits
from .packing import input_width, unpack
from .sampler import sample, token_logprobs
from .weights import Params

__all__ = ["Programs", "StepProgram", "step"]

StepProgram = Callable[[Params, KV, Any], tuple[KV, jax.Array]]
"""``(params, kv, packed inputs) -> (kv, packed results)``; the cache that goes in is gone afterwards."""


def step(config: ModelConfig, key: ProgramKey, params: Params, kv: KV, packed: jax.Array) -> tuple[KV, jax.Array]:
    """Compute one step of the shape ``key``.

    Args:
        packed: i32 ``[rows, input_width(key)]``.

    Returns:
        The new cache, and i32 ``[rows, 2 (+ chunk)]``: token, its log probability's bits, and for a scored program
        the bits of each chunk position's next token's log probability.
    """
    inputs = unpack(key, packed)
    hidden, kv = forward(config, params, kv, inputs.tokens, inputs.positions, inputs.page_tables)
    last = jnp.take_along_axis(hidden, inputs.last[:, None, None], axis=1)[:, 0]
    raw = logits(config, params, last)
    rows = jnp.arange(key.rows)[:, None]
    allowed = raw.at[rows, inputs.banned].set(-jnp.inf, mode="drop")
    # Most batches are greedy, and the filters of `sample` read the whole vocabulary several times.
    ids = jax.lax.cond(
        jnp.any(inputs.sampling.temperature > 0),
        lambda: sample(allowed, inputs.sampling)[0],
        lambda: jnp.argmax(allowed, axis=-1).astype(jnp.int32),
    )
    columns = [ids[:, None], _bits(token_logprobs(raw, ids))[:, None]]
    if key.scored:
        scores = token_logprobs(logits(config, params, hidden[0]), inputs.next_tokens[0])
        columns.append(_bits(scores)[None])
    return kv, jnp.concatenate(columns, axis=1)


def _bits(values: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(values, jnp.int32)


def _specs(tree: Any) -> Any:
    def spec(array: jax.Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(array.shape, array.dtype)

    return jax.tree.map(spec, tree)


@define
class Programs:
    """Compiles step programs, each once, ahead of time or when wanted. Safe to use from threads.

    Args:
        config: of the model.
        params: its weights (only their shapes are used).
        kv: its cache (only its shape is used).
        threads: how many programs are compiled at the same time.
    """

    _config: ModelConfig
    _params: Any = field(converter=_specs)
    _kv: Any = field(converter=_specs)
    _threads: int = 2
    _compiled: dict[ProgramKey, StepProgram] = field(init=False, factory=dict[ProgramKey, StepProgram])
    _locks: dict[ProgramKey, threading.Lock] = field(init=False, factory=dict[ProgramKey, threading.Lock])
    _wanted: set[ProgramKey] = field(init=False, factory=set[ProgramKey])
    _pool: ThreadPoolExecutor = field(init=False)
    _closed: bool = field(init=False, default=False)
    _waiting: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._pool = ThreadPoolExecutor(self._threads, "compile")

    @property
    def waiting(self) -> bool:
        """A step waits for its program to be compiled."""
        return self._waiting

    @property
    def compiled(self) -> frozenset[ProgramKey]:
        """What can be run at once."""
        return frozenset(self._compiled)

    def warm_up(self, keys: Iterable[ProgramKey], on_progress: Callable[[int, int], None]) -> None:
        """Compile these now; ``on_progress`` is called with (programs done, programs in all)."""
        futures = [self._pool.submit(self.get, key) for key in keys]
        on_progress(0, len(futures))
        for done, future in enumerate(futures, 1):
            future.result()
            on_progress(done, len(futures))

    def prepare(self, keys: Iterable[ProgramKey]) -> None:
        """Compile these one after another in the background. A failure shows when the program is used."""
        new = [key for key in keys if key not in self._wanted]
        if new and not self._closed:
            self._wanted.update(new)
            self._pool.submit(self._prepare, new)

    def choose(self, wanted: ProgramKey) -> tuple[ProgramKey, StepProgram]:
        """Return the program for a step: the wanted one, else a larger one, else wait for the wanted one."""
        if wanted in self._compiled:
            return wanted, self._compiled[wanted]
        cover = best_cover(wanted, list(self._compiled))
        if cover is not None:
            self.prepare([wanted])
            return cover, self._compiled[cover]
        self._waiting = True
        try:
            return wanted, self.get(wanted)
        finally:
            self._waiting = False

    def get(self, key: ProgramKey) -> StepProgram:
        """Return the program of this shape; compile it if that was not done, wait if it is being done."""
        with self._locks.setdefault(key, threading.Lock()):
            if key not in self._compiled:
                self._compiled[key] = self._compile(key)
            return self._compiled[key]

    def close(self) -> None:
        """Compile nothing more in the background."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _prepare(self, keys: list[ProgramKey]) -> None:
        for key in keys:
            if not self._closed:
                self.get(key)

    def _compile(self, key: ProgramKey) -> StepProgram:
        jitted = jax.jit(partial(step, self._config, key), donate_argnums=1)
        packed = jax.ShapeDtypeStruct((key.rows, input_width(key)), jnp.int32)
        return cast(StepProgram, jitted.lower(self._params, self._kv, packed).compile())
