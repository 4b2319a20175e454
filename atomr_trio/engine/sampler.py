"""Draws the next token of each row, on the device.

Order of operations: temperature, min-p, top-k, top-p, draw. Each filter is a *threshold on the logits*: a token
is kept when its logit is at least the row's threshold, so equal logits are kept or dropped together. The
thresholds come from the best `CANDIDATES` logits of the row; a row whose answer lies deeper gets it by exact
bisection over the whole vocabulary, in a branch that runs only when some row needs it.

The draw of a row is a function of its own logits, parameters, seed and position: other rows do not matter.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["SamplingState", "greedy", "sample", "seed_words", "token_logprobs"]

CANDIDATES = 64
_BLOCK = 256
_INFINITY_BITS = 0x7F800000


class SamplingState(NamedTuple):
    """How each row of a batch draws.

    Args:
        temperature: f32 ``[B]``; 0 is greedy.
        top_k: i32 ``[B]``; 0 keeps all.
        top_p: f32 ``[B]``; 1 keeps all.
        min_p: f32 ``[B]``; 0 keeps all.
        seed: u32 ``[B, 2]``, as `seed_words` makes it.
        position: i32 ``[B]``: the position that the drawn token will have.
    """

    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array
    min_p: jax.Array
    seed: jax.Array
    position: jax.Array


def seed_words(seed: int) -> tuple[int, int]:
    """Split a seed (taken modulo 2**64) into two u32 words."""
    return (seed >> 32) & 0xFFFFFFFF, seed & 0xFFFFFFFF


def greedy(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Take the best token of each row of f32 ``[B, V]``; returns ids i32 ``[B]`` and log probabilities f32 ``[B]``."""
    ids = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    return ids, token_logprobs(logits, ids)


def token_logprobs(logits: jax.Array, ids: jax.Array) -> jax.Array:
    """Return the log probability, f32 ``[C]``, of token ``ids`` i32 ``[C]`` under raw logits f32 ``[C, V]``."""
    chosen = jnp.take_along_axis(logits, ids[:, None], axis=-1)[:, 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def sample(logits: jax.Array, state: SamplingState) -> tuple[jax.Array, jax.Array]:
    """Draw one token per row.

    Args:
        logits: f32 ``[B, V]``.
        state: parameters of the B rows.

    Returns:
        ids i32 ``[B]``, and their log probabilities f32 ``[B]`` under the raw logits, before any filter.
    """
    drawn = _draw(_weights(logits, state), _uniforms(state))
    ids = jnp.where(state.temperature > 0, drawn, jnp.argmax(logits, axis=-1)).astype(jnp.int32)
    return ids, token_logprobs(logits, ids)


def _weights(logits: jax.Array, state: SamplingState) -> jax.Array:
    """Unnormalised probabilities ``[B, V]`` after all filters; 0 where dropped."""
    # The distance to the row's best logit is 0 or more, so its bit patterns are ordered like it: see _bisect.
    below = jnp.max(logits, axis=-1, keepdims=True) - logits
    rows = _Rows(below, _probabilities(below, state.temperature), state)
    near, settled = _limit_by_candidates(rows)
    limit = jax.lax.cond(
        jnp.all(settled | (state.temperature <= 0)),
        lambda: near,
        lambda: jnp.where(settled, near, _limit_by_bisection(rows)),
    )
    return jnp.where(below <= limit[:, None], rows.weights, 0.0)


class _Rows(NamedTuple):
    below: jax.Array
    weights: jax.Array
    state: SamplingState

    @property
    def top_k(self) -> jax.Array:
        vocab = self.below.shape[-1]
        return jnp.where((self.state.top_k > 0) & (self.state.top_k < vocab), self.state.top_k, vocab)

    @property
    def min_p_limit(self) -> jax.Array:
        by_min_p = -jnp.log(self.state.min_p) * self.state.temperature
        return jnp.where(self.state.min_p > 0, by_min_p, jnp.inf)

    def mass(self, limit: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(self.below <= limit[:, None], self.weights, 0.0), axis=-1)


def _probabilities(below: jax.Array, temperature: jax.Array) -> jax.Array:
    return jnp.exp(-below / jnp.where(temperature > 0, temperature, 1.0)[:, None])


def _limit_by_candidates(rows: _Rows) -> tuple[jax.Array, jax.Array]:
    """How far below its best logit a row's tokens may lie, ``[B]``; the second array says where that is exact."""
    vocab = rows.below.shape[-1]
    count = min(CANDIDATES, vocab)
    best = -jax.lax.top_k(-rows.below, count)[0]
    kth = jnp.take_along_axis(best, jnp.minimum(rows.top_k, count)[:, None] - 1, axis=-1)[:, 0]
    limit = jnp.minimum(rows.min_p_limit, jnp.where(rows.top_k < vocab, kth, jnp.inf))
    target = rows.state.top_p * rows.mass(limit)
    inside = best <= limit[:, None]
    mass = jnp.where(inside, _probabilities(best, rows.state.temperature), 0.0)
    total = jnp.cumsum(mass, axis=-1)
    kept = jnp.sum(inside & (total - mass < target[:, None]), axis=-1)
    nucleus = jnp.take_along_axis(best, jnp.maximum(kept, 1)[:, None] - 1, axis=-1)[:, 0]
    whole = rows.state.top_p >= 1
    top_k_known = (rows.top_k <= count) | (rows.top_k >= vocab)
    nucleus_known = whole | (total[:, -1] >= target) | ~inside[:, -1] | (count == vocab)
    return jnp.where(whole, limit, jnp.minimum(limit, nucleus)), top_k_known & nucleus_known


def _limit_by_bisection(rows: _Rows) -> jax.Array:
    """The same limit for any row: two searches over all values a float can have, each pass reads the vocabulary."""
    kth = _bisect(rows, lambda limit: jnp.sum(rows.below <= limit[:, None], axis=-1) >= rows.top_k)
    limit = jnp.minimum(rows.min_p_limit, kth)
    target = rows.state.top_p * rows.mass(limit)
    nucleus = _bisect(rows, lambda wanted: rows.mass(jnp.minimum(limit, wanted)) >= target)
    return jnp.where(rows.state.top_p >= 1, limit, jnp.minimum(limit, nucleus))


def _bisect(rows: _Rows, enough: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Return the smallest non-negative float, per row, that is ``enough`` (infinity always is)."""

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        passed = enough(jax.lax.bitcast_convert_type(middle, jnp.float32))
        return jnp.where(passed, low, middle), jnp.where(passed, middle, high)

    size = rows.below.shape[0]
    bounds = jnp.full(size, -1, jnp.int32), jnp.full(size, _INFINITY_BITS, jnp.int32)
    return jax.lax.bitcast_convert_type(jax.lax.fori_loop(0, 31, halve, bounds)[1], jnp.float32)


def _uniforms(state: SamplingState) -> jax.Array:
    """Two random numbers in [0, 1) per row, a function of the row's seed and position alone: ``[B, 2]``."""

    def row(seed: jax.Array, position: jax.Array) -> jax.Array:
        key = jax.random.wrap_key_data(seed, impl="threefry2x32")
        return jax.random.uniform(jax.random.fold_in(key, position), (2,))

    return jax.vmap(row)(state.seed, state.position)


def _draw(weights: jax.Array, uniforms: jax.Array) -> jax.Array:
    """Draw an index per row in proportion to ``weights [B, V]``: first a block, then a token of it."""
    batch, vocab = weights.shape
    blocks = jnp.pad(weights, ((0, 0), (0, -vocab % _BLOCK))).reshape(batch, -1, _BLOCK)
    block = _pick(jnp.sum(blocks, axis=-1), uniforms[:, 0])
    inner = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    return block * _BLOCK + _pick(inner, uniforms[:, 1])


def _pick(weights: jax.Array, uniform: jax.Array) -> jax.Array:
    total = jnp.cumsum(weights, axis=-1)
    # A parallel sum may round so that it falls; the second condition keeps dropped tokens out all the same.
    hit = (total > uniform[:, None] * total[:, -1:]) & (weights > 0)
    return jnp.where(jnp.any(hit, axis=-1), jnp.argmax(hit, axis=-1), jnp.argmax(weights, axis=-1))
