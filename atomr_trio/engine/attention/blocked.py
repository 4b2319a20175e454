# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The back-end for chunks on a CPU: pages are read a few at a time, as many as there are, and none twice.

Gathering the whole page table moves every key and value through memory three times, and the padding of the table, too:
for 16 tokens at position 1,500 that takes longer than all products with weights. Here a loop takes the next pages,
which stay in the processor's cache while all query heads attend to them, keeps a running maximum and sum (Milakov and
Gimelshein, "Online normalizer calculation for softmax", 2018), and ends after the last page that anyone sees. So the
width of the table costs nothing, and neither does what lies before a sliding window.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from atomr_trio.engine.blocks import GARBAGE_PAGE
from atomr_trio.engine.kv_cache import LayerCache, Slots, read_pages, write_tokens

from .dense import batched, visible
from .spec import AttentionSpec

__all__ = ["attend_blocked"]

_LEAST, _SMALL = -1e30, 1e-30


class _Running(NamedTuple):
    """Of each query row: the largest score so far, the sum of weights, and the weighted values, not divided yet."""

    largest: jax.Array
    total: jax.Array
    mixed: jax.Array


def attend_blocked(
    spec: AttentionSpec,
    cache: LayerCache,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    slots: Slots,
    *,
    block: int = 128,
) -> tuple[jax.Array, LayerCache]:
    """Attend to pages, see `Attend`; ``block``: positions of one turn.

    It takes time for the positions that are seen, whatever the width of the page tables.
    """
    keys, values = write_tokens(cache[0], slots, k), write_tokens(cache[1], slots, v)
    batch, chunk, heads, dim = q.shape
    kv_heads, page_size = keys.shape[1:3]
    rows = q.reshape(batch, chunk, kv_heads, -1, dim).transpose(0, 2, 3, 1, 4) * spec.scale
    rows = rows.reshape(batch, kv_heads, -1, dim).astype(jnp.float32)
    width = min(max(1, block // page_size), slots.tables.shape[1])
    tables, first, last = _blocks(spec, slots, width, page_size)

    def attend_to(index: jax.Array, running: _Running) -> _Running:
        table = jax.lax.dynamic_slice_in_dim(tables, index * width, width, axis=1)
        scores = batched(rows, read_pages(keys, table), 3, 3)
        if spec.soft_cap is not None:
            scores = spec.soft_cap * jnp.tanh(scores / spec.soft_cap)
        key = index * width * page_size + jnp.arange(width * page_size)
        seen = visible(spec, slots.positions, key)
        shape = batch, kv_heads, heads // kv_heads, chunk, len(key)
        scores = jnp.where(seen[:, None, None], scores.reshape(shape), -jnp.inf).reshape(scores.shape)
        return _joined(running, scores, read_pages(values, table))

    count = rows.shape[:3]
    # Lower than any score, and finite: a block of which a row sees nothing leaves the row as it is.
    nothing = _Running(jnp.full(count, _LEAST), jnp.zeros(count), jnp.zeros((*count, dim)))
    running = jax.lax.fori_loop(first, last, attend_to, nothing)
    # Padding may have seen nothing. It must not make NaN: see `dense`.
    normed = (running.mixed / jnp.maximum(running.total, _SMALL)[..., None]).reshape(batch, kv_heads, -1, chunk, dim)
    return normed.transpose(0, 3, 1, 2, 4).reshape(batch, chunk, heads * dim), (keys, values)


def _blocks(spec: AttentionSpec, slots: Slots, width: int, page_size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Tables that are whole blocks wide, and the first block that anyone sees, and the one after the last."""
    tables = jnp.pad(slots.tables, ((0, 0), (0, -slots.tables.shape[1] % width)))
    block = width * page_size
    last = jnp.max(slots.positions) // block + 1
    if not spec.window:
        return tables, jnp.zeros_like(last), last
    # Padding stands at position 0, and would make every window begin there.
    queries = jnp.where(slots.page == GARBAGE_PAGE, jnp.max(slots.positions), slots.positions)
    return tables, jnp.maximum(jnp.min(queries) - spec.window + 1, 0) // block, last


def _joined(running: _Running, scores: jax.Array, values: jax.Array) -> _Running:
    largest = jnp.maximum(running.largest, jnp.max(scores, axis=-1))
    weights = jnp.exp(scores - largest[..., None])
    fades = jnp.exp(running.largest - largest)
    total = running.total * fades + jnp.sum(weights, axis=-1)
    return _Running(largest, total, running.mixed * fades[..., None] + batched(weights, values, 3, 2))
