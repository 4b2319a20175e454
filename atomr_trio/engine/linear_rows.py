# pyright: reportUnknownMemberType=false
"""Float rows as int8 rows, to be multiplied in integers: exact, so that a row's result never knows its batch-mates.

A row has one scale. Rounded to 8 bits with it, what a transformer computes suffers: a few channels are a hundred
times larger than the others. Rounded to 16 bits it does not, and a 16-bit number is a pair of 8-bit ones,
``256 * high + low``: the product of a row is that of its two halves, and twice the rows cost far less than twice the
time, since the weights are read once.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["Activations", "Int8Rows", "from_products", "to_int8_rows"]

Activations = Literal["float", "int16", "int8"]
"""How the rows that int8 weights are multiplied with are rounded; ``float``: not at all."""

_LEVELS = {"int16": 127.0 * 256.0, "int8": 127.0}

# The scale of a row of zeros: of no consequence, but neither 0 nor so small that its inverse is infinite.
_LEAST = 1e-30


class Int8Rows(NamedTuple):
    """Rows in int8: ``[M, in]``, or ``[2 * M, in]`` with the high halves first; one scale for each, ``[M, 1]``."""

    values: jax.Array
    scale: jax.Array


def to_int8_rows(x: jax.Array, activations: Activations) -> Int8Rows:
    """Round rows.

    Args:
        x: ``[M, in]``, float.
        activations: to how many bits; not ``float``.
    """
    x, levels = x.astype(jnp.float32), _LEVELS[activations]
    largest = jnp.maximum(jnp.max(jnp.abs(x), axis=-1, keepdims=True), _LEAST)
    rounded = jnp.round(x * (levels / largest))
    if activations == "int16":
        high = jnp.floor((rounded + 128) / 256)
        rounded = jnp.concatenate([high, rounded - 256 * high])
    return Int8Rows(rounded.astype(jnp.int8), largest / levels)


def from_products(products: jax.Array, scale: jax.Array) -> jax.Array:
    """Put the products of `to_int8_rows` together: i32 ``[M or 2 * M, out]`` and its scale to float32 ``[M, out]``."""
    rows = len(scale)
    found = products.astype(jnp.float32)
    whole = found if len(found) == rows else 256 * found[:rows] + found[rows:]
    return whole * scale
