# pyright: reportUnknownMemberType=false
"""The back-end that decodes without gathering: rows keep their keys and values side by side from step to step.

Gathering pages costs a CPU several times what attending to them does. So the rows that decode have a *view*: row ``r``
holds everything that its sequence has computed, filled from the pages once, when the sequence joins. A step appends
one token to the view and to the pages, and reads the view alone. The pages stay the truth: a view can be thrown away.
"""

import jax
import jax.numpy as jnp

from atomr_trio.engine.blocks import GARBAGE_PAGE
from atomr_trio.engine.kv_cache import KV, CacheShape, LayerCache, Slots, read_pages, write_tokens

from .dense import dense
from .spec import AttentionSpec

__all__ = ["View", "attend_view", "fill_row", "joined", "parted", "view_shapes"]

View = list[LayerCache]
"""Keys and values by layer, float32 ``[rows, kv_heads, time, head_dim]``. Donate it to every step."""


def view_shapes(config: CacheShape, rows: int, time: int) -> list[tuple[jax.ShapeDtypeStruct, ...]]:
    """Return what a view of so many rows of ``time`` positions is made of; to be allocated with zeros."""
    layer = jax.ShapeDtypeStruct((rows, config.num_kv_heads, time, config.head_dim), jnp.float32)
    return [(layer, layer)] * config.num_layers


def fill_row(kv: KV, view: View, row: jax.Array, table: jax.Array) -> View:
    """Copy pages into a row of a view.

    Args:
        kv: the pages.
        view: donate it.
        row: i32 scalar.
        table: i32 ``[time / page_size]``; what 0 stands for is copied too, and is garbage.
    """
    return [
        (_filled(keys, pages[0], row, table), _filled(values, pages[1], row, table))
        for (keys, values), pages in zip(view, kv, strict=True)
    ]


def _filled(target: jax.Array, pages: jax.Array, row: jax.Array, table: jax.Array) -> jax.Array:
    past = read_pages(pages, table[None]).astype(target.dtype)
    return jax.lax.dynamic_update_slice(target, past, (row, 0, 0, 0))


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
    keys, values = _appended(cache[2], slots, k), _appended(cache[3], slots, v)
    return dense(spec, q, keys, values, slots.positions), (*pages, keys, values)


def _appended(target: jax.Array, slots: Slots, rows: jax.Array) -> jax.Array:
    # Padding must not write: its row may belong to a sequence that only sits this step out.
    row = jnp.arange(target.shape[0])
    position = jnp.where(slots.page[:, 0] == GARBAGE_PAGE, target.shape[2], slots.positions[:, 0])
    return target.at[row, :, position].set(rows[:, 0].astype(target.dtype), mode="drop", unique_indices=True)
