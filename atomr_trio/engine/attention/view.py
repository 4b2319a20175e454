# pyright: reportUnknownMemberType=false
"""The back-end that decodes without gathering: rows keep their keys and values side by side from step to step.

Gathering pages costs a CPU several times what attending to them does. So the rows that decode have a *view*: row ``r``
holds everything that its sequence has computed, filled from the pages once, when the sequence joins. A step appends
one token to the view and to the pages, and reads the view alone. The pages stay the truth: a view can be thrown away.

Keys lie by channel, values by time, and both products are written as sums: XLA:CPU makes loops of them whose innermost
steps are neighbours in memory, two to five times as fast as its products of small matrices.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from atomr_trio.engine.blocks import GARBAGE_PAGE
from atomr_trio.engine.kv_cache import KV, CacheShape, LayerCache, Slots, read_pages, write_tokens

from .dense import visible
from .spec import AttentionSpec

__all__ = ["View", "attend_view", "fill_row", "joined", "parted", "view_shapes"]

View = list[LayerCache]
"""By layer keys, float32 ``[rows, kv_heads, head_dim, time]``, and values, ``[rows, kv_heads, time, head_dim]``.

Donate it to every step.
"""


def view_shapes(
    config: CacheShape, rows: int, time: int, sharding: NamedSharding | None = None
) -> list[tuple[jax.ShapeDtypeStruct, ...]]:
    """Return what a view of so many rows of ``time`` positions is made of; to be allocated with zeros.

    Args:
        config: whose sizes.
        rows: of the view.
        time: positions a row.
        sharding: how the arrays lie over several devices.
    """
    kv_heads, dim = config.num_kv_heads, config.head_dim
    keys = jax.ShapeDtypeStruct((rows, kv_heads, dim, time), jnp.float32, sharding=sharding)
    values = jax.ShapeDtypeStruct((rows, kv_heads, time, dim), jnp.float32, sharding=sharding)
    return [(keys, values)] * config.num_layers


def fill_row(kv: KV, view: View, row: jax.Array, table: jax.Array) -> View:
    """Copy pages into a row of a view.

    Args:
        kv: the pages.
        view: donate it.
        row: i32 scalar.
        table: i32 ``[time / page_size]``; what 0 stands for is copied too, and is garbage.
    """
    return [
        (
            _filled(keys, read_pages(pages[0], table[None]).swapaxes(2, 3), row),
            _filled(values, read_pages(pages[1], table[None]), row),
        )
        for (keys, values), pages in zip(view, kv, strict=True)
    ]


def _filled(target: jax.Array, past: jax.Array, row: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice(target, past.astype(target.dtype), (row, 0, 0, 0))


def joined(kv: KV, view: View) -> KV:
    """Return a cache whose layers hold pages and view, as `attend_view` takes it."""
    return [(*pages, *rows) for pages, rows in zip(kv, view, strict=True)]


def parted(cache: KV) -> tuple[KV, View]:
    """Undo `joined`."""
    return [layer[:2] for layer in cache], [layer[2:] for layer in cache]


def attend_view(
    spec: AttentionSpec, cache: LayerCache, q: jax.Array, k: jax.Array, v: jax.Array, slots: Slots
) -> tuple[jax.Array, LayerCache]:
    """Attend to a view, see `Attend`: one token a row, of sequences that the rows were filled for.

    Args:
        spec: how.
        cache: as `joined` makes it.
        q: ``[B, 1, heads, D]``; row ``b`` of the call is row ``b`` of the view.
        k: ``[B, 1, kv_heads, D]``.
        v: the same.
        slots: where the tokens go in the pages; their positions are those in the view.
    """
    pages = write_tokens(cache[0], slots, k), write_tokens(cache[1], slots, v)
    time = cache[2].shape[3]
    # Padding must not write: its row may belong to a sequence that only sits this step out.
    position = jnp.where(slots.page[:, 0] == GARBAGE_PAGE, time, slots.positions[:, 0])
    row = jnp.arange(len(position))
    keys = _put(cache[2].at[row, :, :, position], k)
    values = _put(cache[3].at[row, :, position], v)
    seen = visible(spec, slots.positions, jnp.arange(time))
    return _attended(spec, q[:, 0], keys, values, seen), (*pages, keys, values)


def _put(place: Any, rows: jax.Array) -> jax.Array:
    return place.set(rows[:, 0].astype(jnp.float32), mode="drop", unique_indices=True)


def _attended(spec: AttentionSpec, q: jax.Array, keys: jax.Array, values: jax.Array, seen: jax.Array) -> jax.Array:
    """Attend with one query a row, ``[B, heads, D]``; ``seen``: bool ``[B, 1, time]``."""
    batch, heads, dim = q.shape
    rows = q.reshape(batch, keys.shape[1], -1, dim).astype(jnp.float32) * spec.scale
    scores = jnp.sum(rows[..., None] * keys[:, :, None], axis=3)
    if spec.soft_cap is not None:
        scores = spec.soft_cap * jnp.tanh(scores / spec.soft_cap)
    scores = jnp.where(seen[:, None], scores, -jnp.inf)
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    mixed = jnp.sum(weights[..., None] * values[:, :, None], axis=3)
    return (mixed / jnp.sum(weights, axis=-1, keepdims=True)).reshape(batch, 1, heads * dim)
