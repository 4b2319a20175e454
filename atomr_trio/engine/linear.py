# pyright: reportUnknownMemberType=false
"""One linear layer, ``x @ w.T``, written in the form that is fast for the backend, the weights and the row count.

`linear_forms` has the forms, `linear_rows` the way to multiply in integers, `linear_tuning` measures what is fastest.
"""

from functools import partial

import jax
import jax.numpy as jnp
from attrs import frozen

from .linear_forms import choose_form, kind_of
from .linear_rows import Activations, from_products, to_int8_rows

__all__ = ["Int8Weight", "TunedForms", "Weight", "best_activations", "embedding", "linear"]

TunedForms = tuple[tuple[int, str], ...]
"""The measured names of forms, each with the most rows that it is meant for, fewest first."""


@partial(jax.tree_util.register_dataclass, data_fields=["values", "scale"], meta_fields=["activations", "forms"])
@frozen
class Int8Weight:
    """A matrix in int8 with one scale per output channel: ``values[o, i] * scale[o]``.

    Args:
        values: int8 ``[out, in]``, -127 to 127.
        scale: float32 ``[out]``.
        activations: how the rows it is multiplied with are rounded. What a row gives depends on this alone.
        forms: how to write the products in integers; static, as ``activations``. Only the time depends on this.
    """

    values: jax.Array
    scale: jax.Array
    activations: Activations = "float"
    forms: TunedForms = ()

    def form_for(self, rows: int) -> str | None:
        """Return what was measured to be the fastest form for so many int8 rows, if anything was."""
        return next((name for most, name in self.forms if rows <= most), None)


Weight = jax.Array | Int8Weight
"""A matrix ``[out, in]``: the checkpoints' own layout, and the faster one on CPUs."""


def best_activations(backend: str) -> Activations:
    """Return how the rows over int8 weights are rounded on a backend.

    CPUs have units for int8 that XLA uses when both sides are. A GPU that multiplies few rows waits for the weights
    only, and widens them on the way.
    """
    return "int16" if backend == "cpu" else "float"


def linear(x: jax.Array, w: Weight) -> jax.Array:
    """Multiply rows by a matrix.

    Args:
        x: ``[..., in]``, float32 or bfloat16. Over bfloat16 weights float32 rows are rounded, the result is not.
        w: ``[out, in]``.

    Returns:
        ``[..., out]`` in the dtype of ``x``.
    """
    rows = x.reshape(-1, x.shape[-1])
    if not isinstance(w, Int8Weight):
        product = _float_product(rows, w)
    elif w.activations == "float":
        product = _float_product(rows, w.values) * w.scale
    else:
        product = _integer_product(rows, w) * w.scale
    return product.astype(x.dtype).reshape(*x.shape[:-1], -1)


def _float_product(x: jax.Array, w: jax.Array) -> jax.Array:
    return choose_form(kind_of(w.dtype.name), jax.default_backend(), len(x)).multiply(x, w)


def _integer_product(x: jax.Array, w: Int8Weight) -> jax.Array:
    rows = to_int8_rows(x, w.activations)
    count = len(rows.values)
    form = choose_form("integers", jax.default_backend(), count, w.form_for(count))
    return from_products(form.multiply(rows.values, w.values), rows.scale)


def embedding(ids: jax.Array, w: Weight) -> jax.Array:
    """Look rows up: ``ids`` i32 of any shape; returns ``[*ids.shape, in]`` in float32."""
    if isinstance(w, Int8Weight):
        return w.values[ids].astype(jnp.float32) * w.scale[ids][..., None]
    return w[ids].astype(jnp.float32)
