"""The back-end that works everywhere: gather the pages of each row, then attend to them as one piece."""

import jax

from atomr_trio.engine.kv_cache import LayerCache, Slots, read_pages, write_tokens

from .dense import dense
from .spec import AttentionSpec

__all__ = ["attend_pages"]


def attend_pages(
    spec: AttentionSpec, cache: LayerCache, q: jax.Array, k: jax.Array, v: jax.Array, slots: Slots
) -> tuple[jax.Array, LayerCache]:
    """Attend to pages, see `Attend`. It covers as many positions as the page tables have room for."""
    keys, values = write_tokens(cache[0], slots, k), write_tokens(cache[1], slots, v)
    past = read_pages(keys, slots.tables), read_pages(values, slots.tables)
    return dense(spec, q, *past, slots.positions), (keys, values)
