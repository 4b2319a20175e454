# pyright: reportUnknownMemberType=false
"""One linear layer, ``x @ w.T``, written in the form that is fast for the backend, the dtype and the row count.

On XLA:CPU the way a small product is written decides its speed by a factor of 10 to 60, and the form that is best
for one row is among the worst for two. `choose_form` is the table.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["Int8Weight", "Weight", "choose_form", "embedding", "linear"]


class Int8Weight(NamedTuple):
    """A matrix in int8 with one scale per output channel: ``values[o, i] * scale[o]``."""

    values: jax.Array
    scale: jax.Array


Weight = jax.Array | Int8Weight
"""A matrix ``[out, in]``: the checkpoints' own layout, and the faster one on CPUs."""

Form = Callable[[jax.Array, jax.Array], jax.Array]
"""Multiplies float rows ``[M, in]`` by ``[out, in]`` of any dtype."""

_LAST_AXES = (((1,), (1,)), ((), ()))

# Above this many rows, widening the weights once for all rows is cheaper than inside each row's product.
_FEW_ROWS = 128


def linear(x: jax.Array, w: Weight) -> jax.Array:
    """Multiply rows by a matrix.

    Args:
        x: ``[..., in]``, float32 or bfloat16. Over bfloat16 weights float32 rows are rounded, the result is not.
        w: ``[out, in]``.

    Returns:
        ``[..., out]`` in the dtype of ``x``.
    """
    rows = x.reshape(-1, x.shape[-1])
    product = _scaled(rows, w) if isinstance(w, Int8Weight) else _multiply(rows, w)
    return product.astype(x.dtype).reshape(*x.shape[:-1], -1)


def _scaled(x: jax.Array, w: Int8Weight) -> jax.Array:
    return _multiply(x, w.values) * w.scale


def _multiply(x: jax.Array, w: jax.Array) -> jax.Array:
    rows = x.shape[0]
    if rows == 1 and x.dtype == jnp.float32 and w.dtype == jnp.bfloat16:
        # The form for one row rounds its result to bfloat16, which is too coarse for logits.
        return _multiply(jnp.repeat(x, 2, axis=0), w)[:1]
    return choose_form(jax.default_backend(), w.dtype.name, rows)(x, w)


def choose_form(backend: str, dtype: str, rows: int) -> Form:
    """Return how to write a product of ``rows`` rows with a matrix of ``dtype``."""
    if dtype == "float32":
        return _exact
    if dtype == "bfloat16":
        return _native if backend == "cpu" and rows == 1 else _widened_result
    return _fused_sum if backend == "cpu" and 1 < rows <= _FEW_ROWS else _widened_weights


def _exact(x: jax.Array, w: jax.Array) -> jax.Array:
    return jax.lax.dot_general(x, w, _LAST_AXES, precision=jax.lax.Precision.HIGHEST)


def _native(x: jax.Array, w: jax.Array) -> jax.Array:
    return x.astype(w.dtype) @ w.T


def _widened_result(x: jax.Array, w: jax.Array) -> jax.Array:
    return jax.lax.dot_general(x.astype(w.dtype), w, _LAST_AXES, preferred_element_type=jnp.float32)


def _widened_weights(x: jax.Array, w: jax.Array) -> jax.Array:
    return x @ w.astype(x.dtype).T


def _fused_sum(x: jax.Array, w: jax.Array) -> jax.Array:
    return jnp.sum(x[:, None, :] * w.astype(x.dtype), axis=-1)


def embedding(ids: jax.Array, w: Weight) -> jax.Array:
    """Look rows up: ``ids`` i32 of any shape; returns ``[*ids.shape, in]`` in float32."""
    if isinstance(w, Int8Weight):
        return w.values[ids].astype(jnp.float32) * w.scale[ids][..., None]
    return w[ids].astype(jnp.float32)
