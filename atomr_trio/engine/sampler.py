# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Draws the next token of each row, on the device.

Order of operations: temperature, min-p, top-k, top-p, draw. Each filter is a *threshold on the logits*: a token
is kept when its logit is at least the row's threshold, so equal logits are kept or dropped together. The
thresholds come from the best `CANDIDATES` logits of a row; a row whose answer lies deeper gets it by exact
bisection over the whole vocabulary, in a branch that runs only for such rows.

The draw of a row is a function of its own logits, parameters, seed and position: other rows do not matter.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["SamplingState", "greedy", "sample", "seed_words", "token_logprobs", "top_logprobs"]

CANDIDATES = 64

# The vocabulary is handled as blocks of this many tokens: to find the best token, the best few, or the one that
# was drawn, look at one number per block first. Several times faster than the whole row at once, and exact.
_BLOCK = 64

_INFINITY_BITS = 0x7F800000

# Beyond these, a temperature or its inverse is 0 or infinite in float32, and the weights are no numbers.
_COLDEST, _HOTTEST = 1e-20, 1e20


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
    """Take the best token of each row.

    Args:
        logits: f32 ``[B, V]``.

    Returns:
        ids i32 ``[B]`` (the lowest of equals), and their log probabilities f32 ``[B]``.
    """
    ids = _best_token(_in_blocks(logits))
    return ids, token_logprobs(logits, ids)


def token_logprobs(logits: jax.Array, ids: jax.Array) -> jax.Array:
    """Return the log probability, f32 ``[C]``, of token ``ids`` i32 ``[C]`` under raw logits f32 ``[C, V]``."""
    chosen = jnp.take_along_axis(logits, ids[:, None], axis=-1)[:, 0]
    return chosen - _log_total(_in_blocks(logits))


def top_logprobs(logits: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """Return the ``count`` best tokens of each row, best first, the lower id first among equals.

    Args:
        logits: f32 ``[B, V]``, raw.
        count: at most V.

    Returns:
        ids i32 ``[B, count]``, and their log probabilities f32 ``[B, count]``.
    """
    blocks = _in_blocks(logits)
    _, chosen = jax.lax.top_k(jnp.max(blocks, axis=-1), min(count, blocks.shape[1]))
    # In the order of their tokens, so that the first of equals is the lowest.
    chosen = jnp.sort(chosen, axis=-1)
    near = jnp.take_along_axis(blocks, chosen[:, :, None], axis=1).reshape(logits.shape[0], -1)
    best, place = jax.lax.top_k(near, count)
    ids = _token(jnp.take_along_axis(chosen, place // _BLOCK, axis=1), place % _BLOCK)
    return ids, best - _log_total(blocks)[:, None]


def _log_total(blocks: jax.Array) -> jax.Array:
    """Logarithm of the sum of the exponentials of each row, ``[B]``."""
    peak = jnp.max(jnp.max(blocks, axis=-1), axis=-1)
    return peak + jnp.log(jnp.sum(jnp.exp(blocks - peak[:, None, None]), axis=(1, 2)))


def sample(logits: jax.Array, state: SamplingState) -> tuple[jax.Array, jax.Array]:
    """Draw one token per row.

    Args:
        logits: f32 ``[B, V]``.
        state: parameters of the B rows.

    Returns:
        ids i32 ``[B]``, and their log probabilities f32 ``[B]`` under the raw logits, before any filter.
    """
    blocks = _in_blocks(logits)
    drawn = _draw(_weights(blocks, state, logits.shape[-1]), _uniforms(state))
    ids = jnp.where(state.temperature > 0, drawn, _best_token(blocks))
    return ids, token_logprobs(logits, ids)


def _in_blocks(logits: jax.Array) -> jax.Array:
    batch, vocab = logits.shape
    padded = jnp.pad(logits, ((0, 0), (0, -vocab % _BLOCK)), constant_values=-jnp.inf)
    return padded.reshape(batch, -1, _BLOCK)


def _best_token(blocks: jax.Array) -> jax.Array:
    block = jnp.argmax(jnp.max(blocks, axis=-1), axis=-1)
    return _token(block, jnp.argmax(_block(blocks, block), axis=-1))


def _block(blocks: jax.Array, index: jax.Array) -> jax.Array:
    return jnp.take_along_axis(blocks, index[:, None, None], axis=1)[:, 0]


def _token(block: jax.Array, within: jax.Array) -> jax.Array:
    return (block * _BLOCK + within).astype(jnp.int32)


class _Rows(NamedTuple):
    """The rows in a form that all filters share.

    ``below``: distance of each logit to the row's best, ``[B, n, _BLOCK]``; not negative, infinite for padding.
    ``weights``: unnormalised probabilities after temperature. ``min_p_limit``, ``top_k``, ``top_p``: ``[B]``, with
    infinity, the number of all tokens, and 1 for "off".
    """

    below: jax.Array
    weights: jax.Array
    min_p_limit: jax.Array
    top_k: jax.Array
    top_p: jax.Array


def _weights(blocks: jax.Array, state: SamplingState, vocab: int) -> jax.Array:
    """Unnormalised probabilities after all filters, 0 where dropped: the shape of ``blocks``."""
    below = jnp.max(blocks, axis=(1, 2), keepdims=True) - blocks
    temperature = jnp.where(state.temperature > 0, jnp.clip(state.temperature, _COLDEST, _HOTTEST), 1.0)
    min_p_limit = jnp.where(state.min_p > 0, -jnp.log(state.min_p) * temperature, jnp.inf)
    top_k = jnp.where((state.top_k > 0) & (state.top_k < vocab), state.top_k, vocab)
    weights = jnp.exp(-below / temperature[:, None, None])
    rows = _Rows(below, weights, min_p_limit, top_k, state.top_p)
    near, settled = _limit_by_candidates(rows, temperature, vocab)
    settled |= state.temperature <= 0
    limit = jax.lax.cond(jnp.all(settled), lambda: near, lambda: _limit_by_bisection(rows, near, settled))
    return jnp.where(below <= limit[:, None, None], weights, 0.0)


def _limit_by_candidates(rows: _Rows, temperature: jax.Array, vocab: int) -> tuple[jax.Array, jax.Array]:
    """How far below its best logit a row's tokens may lie, ``[B]``; the second array says where that is exact."""
    count = min(CANDIDATES, vocab)
    best = _smallest(rows.below, count)
    kth = _at(best, jnp.minimum(rows.top_k, count) - 1)
    limit = jnp.minimum(rows.min_p_limit, jnp.where(rows.top_k < vocab, kth, jnp.inf))
    target = rows.top_p * _mass(rows, limit[:, None, None], axis=(1, 2))
    inside = best <= limit[:, None]
    mass = jnp.where(inside, jnp.exp(-best / temperature[:, None]), 0.0)
    total = jnp.cumsum(mass, axis=-1)
    kept = jnp.sum(inside & (total - mass < target[:, None]), axis=-1)
    whole = rows.top_p >= 1
    top_k_known = (rows.top_k <= count) | (rows.top_k >= vocab)
    nucleus_known = whole | (total[:, -1] >= target) | ~inside[:, -1] | (count == vocab)
    nucleus = jnp.where(whole, jnp.inf, _at(best, jnp.maximum(kept, 1) - 1))
    return jnp.minimum(limit, nucleus), top_k_known & nucleus_known


def _at(values: jax.Array, index: jax.Array) -> jax.Array:
    return jnp.take_along_axis(values, index[:, None], axis=-1)[:, 0]


def _mass(rows: _Rows, limit: jax.Array, axis: int | tuple[int, ...] | None = None) -> jax.Array:
    return jnp.sum(jnp.where(rows.below <= limit, rows.weights, 0.0), axis=axis)


def _smallest(below: jax.Array, count: int) -> jax.Array:
    """The ``count`` smallest values of each row, ascending: they lie in the ``count`` blocks with the smallest."""
    if below.shape[1] > count:
        _, blocks = jax.lax.top_k(-jnp.min(below, axis=-1), count)
        below = jnp.take_along_axis(below, blocks[:, :, None], axis=1)
    return -jax.lax.top_k(-below.reshape(below.shape[0], -1), count)[0]


def _limit_by_bisection(rows: _Rows, near: jax.Array, settled: jax.Array) -> jax.Array:
    """Replace the limits of unsettled rows by exact ones: two searches that read the whole row at each step."""

    def one(row: tuple[_Rows, jax.Array, jax.Array]) -> jax.Array:
        return jax.lax.cond(row[2], lambda: row[1], lambda: _search(row[0]))

    # Row after row is better on a CPU: settled rows cost nothing, and one row stays in the core's cache.
    return (jax.lax.map if jax.default_backend() == "cpu" else _all_at_once)(one, (rows, near, settled))


def _all_at_once(f: Callable[..., jax.Array], rows: tuple[_Rows, jax.Array, jax.Array]) -> jax.Array:
    return jax.vmap(f)(rows)


def _search(row: _Rows) -> jax.Array:
    kth = _bisect(lambda limit: jnp.sum(row.below <= limit) >= row.top_k)
    limit = jnp.minimum(row.min_p_limit, kth)
    target = row.top_p * _mass(row, limit)
    nucleus = _bisect(lambda wanted: _mass(row, jnp.minimum(limit, wanted)) >= target)
    return jnp.where(row.top_p >= 1, limit, jnp.minimum(limit, nucleus))


def _bisect(enough: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Return the smallest float of 0 or more that is ``enough``; infinity always is.

    Non-negative floats are ordered like their bit patterns, so 31 halvings find it among all there are.
    """

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        passed = enough(jax.lax.bitcast_convert_type(middle, jnp.float32))
        return jnp.where(passed, low, middle), jnp.where(passed, middle, high)

    _, found = jax.lax.fori_loop(0, 31, halve, (jnp.int32(-1), jnp.int32(_INFINITY_BITS)))
    return jax.lax.bitcast_convert_type(found, jnp.float32)


def _uniforms(state: SamplingState) -> jax.Array:
    """Two random numbers in [0, 1) per row, a function of the row's seed and position alone: ``[B, 2]``."""

    def row(seed: jax.Array, position: jax.Array) -> jax.Array:
        key = jax.random.wrap_key_data(seed, impl="threefry2x32")
        return jax.random.uniform(jax.random.fold_in(key, position), (2,))

    return jax.vmap(row)(state.seed, state.position)


def _draw(weights: jax.Array, uniforms: jax.Array) -> jax.Array:
    """Draw a token per row in proportion to ``weights [B, n, _BLOCK]``: first its block, then its place in it."""
    block = _pick(jnp.sum(weights, axis=-1), uniforms[:, 0])
    return _token(block, _pick(_block(weights, block), uniforms[:, 1]))


def _pick(weights: jax.Array, uniform: jax.Array) -> jax.Array:
    total = jnp.cumsum(weights, axis=-1)
    # A parallel sum may round so that it falls; the second condition keeps dropped tokens out all the same.
    hit = (total > uniform[:, None] * total[:, -1:]) & (weights > 0)
    return jnp.where(jnp.any(hit, axis=-1), jnp.argmax(hit, axis=-1), jnp.argmax(weights, axis=-1))
