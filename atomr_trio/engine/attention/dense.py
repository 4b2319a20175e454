# pyright: reportUnknownMemberType=false
"""Softmax attention over keys and values that lie side by side."""

import jax
import jax.numpy as jnp

from .spec import AttentionSpec

__all__ = ["batched", "dense", "visible"]

# With fewer query rows than this, XLA:CPU multiplies much faster if the keys are on the left.
_FEW_ROWS = 16


def dense(spec: AttentionSpec, q: jax.Array, k: jax.Array, v: jax.Array, positions: jax.Array) -> jax.Array:
    """Attend.

    The query heads of one group are further rows of one product, and the softmax is divided after the second
    product, where the rows are short: a third of the time of the textbook order on a CPU.

    Args:
        spec: how.
        q: ``[B, C, heads, D]``.
        k: ``[B, kv_heads, T, D]``.
        v: the same.
        positions: i32 ``[B, C]``, not negative: a query sees keys up to its position.

    Returns:
        float32 ``[B, C, heads * D]``.
    """
    batch, chunk, heads, dim = q.shape
    kv_heads, time = k.shape[1:3]
    rows = q.reshape(batch, chunk, kv_heads, -1, dim).transpose(0, 2, 3, 1, 4) * spec.scale
    scores = _scores(rows.reshape(batch, kv_heads, -1, dim), k).reshape(batch, kv_heads, -1, chunk, time)
    if spec.soft_cap is not None:
        scores = spec.soft_cap * jnp.tanh(scores / spec.soft_cap)
    # Every row sees its own position, and padding position 0, so no row is masked as a whole: that would make NaN,
    # which padding would store in the garbage page, where a probability of 0 does not stop it.
    scores = jnp.where(visible(spec, positions, jnp.arange(time))[:, None, None], scores, -jnp.inf)
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    mixed = batched(weights.reshape(batch, kv_heads, -1, time), v, 3, 2).reshape(batch, kv_heads, -1, chunk, dim)
    normed = mixed / jnp.sum(weights, axis=-1, keepdims=True)
    return normed.transpose(0, 3, 1, 2, 4).reshape(batch, chunk, heads * dim)


def visible(spec: AttentionSpec, positions: jax.Array, keys: jax.Array) -> jax.Array:
    """Say which of the keys at positions ``keys [T]`` queries at ``positions [B, C]`` see: bool ``[B, C, T]``."""
    seen = keys <= positions[:, :, None]
    if spec.window:
        seen &= keys > positions[:, :, None] - spec.window
    return seen


def _scores(rows: jax.Array, k: jax.Array) -> jax.Array:
    if rows.shape[2] < _FEW_ROWS:
        return batched(k, rows.astype(k.dtype), 3, 3).swapaxes(2, 3)
    return batched(rows, k, 3, 3)


def batched(a: jax.Array, b: jax.Array, a_axis: int, b_axis: int) -> jax.Array:
    """Contract two axes over the two batch axes, to float32."""
    dimensions = (((a_axis,), (b_axis,)), ((0, 1), (0, 1)))
    precision = jax.lax.Precision.HIGHEST if b.dtype == jnp.float32 else None
    return jax.lax.dot_general(
        a.astype(b.dtype), b, dimensions, precision=precision, preferred_element_type=jnp.float32
    )
