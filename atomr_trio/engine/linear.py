"""One linear layer, ``x @ w.T``, written in the form that is fast for the backend, the dtype and the row count.

On XLA:CPU the way a small product is written decides its speed by a factor of 10 to 60; `_form` is the table.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["Int8Weight", "Weight", "embedding", "linear"]


class Int8Weight(NamedTuple):
    """A matrix in int8 with one scale per output channel: ``values[o, i] * scale[o]``."""

    values: jax.Array
    scale: jax.Array


# Contract the last axis of both: x @ w.T.
_BY_ROWS = (((1,), (1,)), ((), ()))

# Up to here XLA:CPU widens int8 weights inside the product; above, once for all rows.
_FEW_ROWS = 48

Weight = jax.Array | Int8Weight
"""A matrix ``[out, in]``."""


def linear(x: jax.Array, w: Weight) -> jax.Array:
    """Multiply rows by a matrix.

    Args:
        x: ``[..., in]``, float32 or bfloat16.
        w: ``[out, in]``.

    Returns:
        ``[..., out]`` in the dtype of ``x``.
    """
    rows = x.reshape(-1, x.shape[-1])
    product = _int8(rows, w) if isinstance(w, Int8Weight) else _float(rows, w)
    return product.astype(x.dtype).reshape(*x.shape[:-1], -1)


def _float(x: jax.Array, w: jax.Array) -> jax.Array:
    x = x.astype(w.dtype)
    if w.dtype == jnp.float32 or x.shape[0] == 1:
        return x @ w.T
    # Without float32 results XLA:CPU takes a generic loop for several rows of bfloat16: 10 to 30 times slower.
    return jax.lax.dot_general(x, w, _BY_ROWS, preferred_element_type=jnp.float32)


def _int8(x: jax.Array, w: Int8Weight) -> jax.Array:
    if jax.default_backend() == "cpu" and 1 < x.shape[0] <= _FEW_ROWS:
        product = jnp.sum(x[:, None, :] * w.values.astype(x.dtype), axis=-1)
    else:
        product = x @ w.values.astype(x.dtype).T
    return product * w.scale


def embedding(ids: jax.Array, w: Weight) -> jax.Array:
    """Look rows up: ``ids`` i32 of any shape; returns ``[*ids.shape, in]`` in float32."""
    if isinstance(w, Int8Weight):
        return w.values[ids].astype(jnp.float32) * w.scale[ids][..., None]
    return w[ids].astype(jnp.float32)
