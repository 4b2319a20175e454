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
    values = w.values if isinstance(w, Int8Weight) else w
    product = choose_form(jax.default_backend(), values.dtype.name, rows.shape[0])(rows, values)
    if isinstance(w, Int8Weight):
        product = product * w.scale
    return product.astype(x.dtype).reshape(*x.shape[:-1], -1)


def choose_form(backend: str, dtype: str, rows: int) -> Form:
    """Return how to write a product of ``rows`` rows with a matrix of ``dtype``."""
    if dtype == "float32":
        return _exact
    if dtype == "bfloat16":
        return _one_row if backend == "cpu" and rows == 1 else _widened_result
    return _sum if backend == "cpu" and 1 < rows <= _FEW_ROWS else _widened_weights


def _exact(x: jax.Array, w: jax.Array) -> jax.Array:
    return jax.lax.dot_general(x, w, _LAST_AXES, precision=jax.lax.Precision.HIGHEST)


def _one_row(x: jax.Array, w: jax.Array) -> jax.Array:
    return _widened_weights(x.astype(w.dtype).astype(jnp.float32), w)


def _widened_result(x: jax.Array, w: jax.Array) -> jax.Array:
    return jax.lax.dot_general(x.astype(w.dtype), w, _LAST_AXES, preferred_element_type=jnp.float32)


def _widened_weights(x: jax.Array, w: jax.Array) -> jax.Array:
    # Not the same as contracting the last axes: written so, XLA:CPU makes one loop for a single row.
    return x @ w.astype(x.dtype).T


def _sum(x: jax.Array, w: jax.Array) -> jax.Array:
    return jnp.sum(x[:, None, :] * w.astype(x.dtype), axis=-1)


def embedding(ids: jax.Array, w: Weight) -> jax.Array:
    """Look rows up: ``ids`` i32 of any shape; returns ``[*ids.shape, in]`` in float32."""
    if isinstance(w, Int8Weight):
        return w.values[ids].astype(jnp.float32) * w.scale[ids][..., None]
    return w[ids].astype(jnp.float32)
