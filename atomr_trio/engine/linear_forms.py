# pyright: reportUnknownMemberType=false
"""The ways to write a product of rows with a matrix ``[out, in]``, and where each of them applies.

On XLA:CPU the way a small product is written decides its speed by a factor of 10 to 60, and the form that is best
for one row is among the worst for two. Forms of one *kind* compute the same numbers. Those over integers compute the
same bits, whatever the row count and the machine: only they are exchanged for one another by measuring.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from attrs import frozen

__all__ = ["FORMS", "Form", "Kind", "candidates", "choose_form", "kind_of"]

Kind = Literal["float32", "bfloat16", "int8", "integers"]
"""What is multiplied: float rows with weights of a dtype, or int8 rows with int8 weights (``integers``)."""

Multiply = Callable[[jax.Array, jax.Array], jax.Array]
"""``[M, in]`` and ``[out, in]`` to ``[M, out]``: float32, or the dtype of the rows, or int32 for ``integers``."""

_LAST_AXES = (((1,), (1,)), ((), ()))

# So many products of an int8 in -128..127 and one in -127..127 add up in float32 without a rounding.
_EXACT_TERMS = 2**24 // (128 * 127)

_PADDED = 4


@frozen
class Form:
    """One way to write a product.

    Args:
        name: in the table, and in the file of choices.
        kind: what it multiplies.
        multiply: does it.
        cpu: it applies on CPUs.
        others: it applies elsewhere.
        least: fewest rows it applies to.
        most: most rows; ``None``: any number.
    """

    name: str
    kind: Kind
    multiply: Multiply
    cpu: bool = True
    others: bool = True
    least: int = 1
    most: int | None = None

    def applies(self, kind: Kind, backend: str, rows: int) -> bool:
        """Say whether it may be used."""
        right_backend = self.cpu if backend == "cpu" else self.others
        return self.kind == kind and right_backend and self.least <= rows <= (self.most or rows)


def _exact(x: jax.Array, w: jax.Array) -> jax.Array:
    return jax.lax.dot_general(x, w, _LAST_AXES, precision=jax.lax.Precision.HIGHEST)


def _widened_weights(x: jax.Array, w: jax.Array) -> jax.Array:
    # Not the same as contracting the last axes: written so, XLA:CPU makes one loop for a single row.
    return x @ w.astype(x.dtype).T


def _rounded_row(x: jax.Array, w: jax.Array) -> jax.Array:
    return _widened_weights(x.astype(w.dtype).astype(jnp.float32), w)


def _widened_result(x: jax.Array, w: jax.Array) -> jax.Array:
    return jax.lax.dot_general(x.astype(w.dtype), w, _LAST_AXES, preferred_element_type=jnp.float32)


def _widened_to_bfloat16(x: jax.Array, w: jax.Array) -> jax.Array:
    return _widened_result(x.astype(jnp.bfloat16), w.astype(jnp.bfloat16))


def _sum(x: jax.Array, w: jax.Array) -> jax.Array:
    return jnp.sum(x[:, None, :] * w.astype(x.dtype), axis=-1)


def _dot(x: jax.Array, w: jax.Array) -> jax.Array:
    return jax.lax.dot_general(x, w, _LAST_AXES, preferred_element_type=jnp.int32)


def _turned(x: jax.Array, w: jax.Array) -> jax.Array:
    return _dot(w, x).T


def _padded(x: jax.Array, w: jax.Array) -> jax.Array:
    return _dot(jnp.pad(x, ((0, _PADDED - len(x)), (0, 0))), w)[: len(x)]


def _row_by_row(x: jax.Array, w: jax.Array) -> jax.Array:
    return jnp.concatenate([_one_row(x[row : row + 1], w) for row in range(len(x))])


def _one_row(x: jax.Array, w: jax.Array) -> jax.Array:
    cuts = range(0, w.shape[1], _EXACT_TERMS)
    parts = [slice(cut, cut + _EXACT_TERMS) for cut in cuts]
    exact = [_widened_weights(x[:, part].astype(jnp.float32), w[:, part]).astype(jnp.int32) for part in parts]
    return sum(exact[1:], exact[0])


FORMS: tuple[Form, ...] = (
    Form("exact", "float32", _exact),
    Form("rounded row", "bfloat16", _rounded_row, others=False, most=1),
    Form("widened result", "bfloat16", _widened_result),
    # Above some rows, widening the weights once for all of them is cheaper than inside each row's product.
    Form("sum", "int8", _sum, others=False, least=2, most=128),
    Form("widened weights", "int8", _widened_weights, others=False),
    Form("widened to bfloat16", "int8", _widened_to_bfloat16, cpu=False),
    # A single row is no matrix to XLA:CPU: it makes its own loop, which knows none of the processor's int8 units.
    Form("padded", "integers", _padded, others=False, most=1),
    Form("dot", "integers", _dot),
    Form("turned", "integers", _turned, others=False, least=2),
    Form("padded pair", "integers", _padded, others=False, least=2, most=2),
    Form("row by row", "integers", _row_by_row, others=False, most=2),
)
"""All forms. Of those that apply to a product, the first is the default."""


def kind_of(dtype: str) -> Kind:
    """Return what a product of float rows with weights of this dtype is.

    Raises:
        ValueError: weights are not held so.
    """
    if dtype == "float32" or dtype == "bfloat16" or dtype == "int8":
        return dtype
    raise ValueError(f"weights of {dtype} cannot be multiplied")


def candidates(kind: Kind, backend: str, rows: int) -> tuple[Form, ...]:
    """Return the forms that apply to a product, the default one first."""
    return tuple(form for form in FORMS if form.applies(kind, backend, rows))


def choose_form(kind: Kind, backend: str, rows: int, preferred: str | None = None) -> Form:
    """Return the form of this name if it applies, else the default one."""
    applicable = candidates(kind, backend, rows)
    return next((form for form in applicable if form.name == preferred), applicable[0])
