# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The two device programs of a step, and how they are compiled.

A step is a forward program (cache donated, one row of logits per sequence) and a draw from its logits. They are apart
because drawing takes as long to compile as the model, and its shape knows neither context nor chunk.
"""

import threading
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from attrs import define, field

from .buckets import ProgramKey
from .config import ModelConfig
from .model import KV, forward, logits
from .packing import DRAW_WIDTH, step_width, unpack_draws, unpack_steps
from .sampler import greedy, sample, token_logprobs
from .weights import Params

__all__ = ["ProgramBuilder", "compute", "draw"]


def compute(
    config: ModelConfig, key: ProgramKey, params: Params, kv: KV, packed: jax.Array
) -> tuple[KV, jax.Array, jax.Array]:
    """Run the model over one step of the shape ``key``.

    Args:
        packed: i32 ``[B, step_width(key)]``.

    Returns:
        The new cache; f32 ``[B, V]``, logits after each row's last token; and f32 ``[C]``, the log probability of each
        next token of a scored chunk (``[0]`` otherwise).
    """
    inputs = unpack_steps(key, packed)
    hidden, kv = forward(config, params, kv, inputs.tokens, inputs.positions, inputs.page_tables)
    last = jnp.take_along_axis(hidden, inputs.last[:, None, None], axis=1)[:, 0]
    scores = jnp.zeros(0)
    if key.kind == "scored":
        scores = token_logprobs(logits(config, params, hidden[0]), inputs.next_tokens[0])
    return kv, logits(config, params, last), scores


def draw(raw: jax.Array, packed: jax.Array) -> jax.Array:
    """Draw a token per row.

    Args:
        raw: f32 ``[B, V]``, logits.
        packed: i32 ``[B, DRAW_WIDTH]``.

    Returns:
        i32 ``[B, 2]``: the token, and the bits of its log probability under the raw logits.
    """
    sampling, banned = unpack_draws(packed)
    rows = jnp.arange(raw.shape[0])[:, None]
    allowed = raw.at[rows, banned].set(-jnp.inf, mode="drop")
    # Most batches are greedy, and the filters of `sample` read the whole vocabulary several times.
    ids = jax.lax.cond(
        jnp.any(sampling.temperature > 0),
        lambda: sample(allowed, sampling)[0],
        lambda: greedy(allowed)[0],
    )
    bits = jax.lax.bitcast_convert_type(token_logprobs(raw, ids), jnp.int32)
    return jnp.stack([ids, bits], axis=1)


def _spec(array: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _specs(tree: Any) -> Any:
    return jax.tree.map(_spec, tree)


@define
class ProgramBuilder:
    """Compiles programs for a model and a cache, of which only the shapes are used. Safe to use from threads."""

    _config: ModelConfig
    _params: Any = field(converter=_specs)
    _kv: Any = field(converter=_specs)
    # Two threads that trace at once share what jax remembers of inner functions, by chance: the same program would
    # come out in another text each time, and never be found in the persistent cache. Compiling goes on in parallel.
    _tracing: threading.Lock = field(init=False, factory=threading.Lock)

    def __call__(self, key: ProgramKey) -> jax.stages.Compiled:
        """Compile the program of this shape: ``draw`` or ``compute``, the latter with its cache donated."""
        with self._tracing:
            lowered = self._lower_draw(key) if key.kind == "sample" else self._lower_compute(key)
        return lowered.compile()

    def _lower_draw(self, key: ProgramKey) -> jax.stages.Lowered:
        raw = jax.ShapeDtypeStruct((key.rows, self._config.vocab_size), jnp.float32)
        packed = jax.ShapeDtypeStruct((key.rows, DRAW_WIDTH), jnp.int32)
        return jax.jit(draw).lower(raw, packed)

    def _lower_compute(self, key: ProgramKey) -> jax.stages.Lowered:
        packed = jax.ShapeDtypeStruct((key.rows, step_width(key)), jnp.int32)
        jitted = jax.jit(partial(compute, self._config, key), donate_argnums=1)
        return jitted.lower(self._params, self._kv, packed)
