# pyright: reportUnknownMemberType=false
"""The paged key-value cache: one pair of arrays per layer, written by scatter and read by gather.

Each array is ``[num_pages, num_kv_heads, page_size, head_dim]``; page 0 takes what is thrown away. Other modules
treat the arrays as opaque.
"""

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from .config import DType

__all__ = [
    "KV",
    "CacheShape",
    "LayerCache",
    "Slots",
    "activation_dtype",
    "copy_in",
    "copy_out",
    "find_slots",
    "init_kv",
    "read_pages",
    "write_tokens",
]

LayerCache = tuple[jax.Array, ...]
"""Keys and values of one layer; what else a back-end of attention keeps comes after them."""

KV = list[LayerCache]
"""The whole cache, by layer. Donate it to every step."""


class CacheShape(Protocol):
    """What a cache is allocated for: a model, or its configuration."""

    @property
    def num_layers(self) -> int:
        """Layers that have a cache."""
        ...

    @property
    def num_kv_heads(self) -> int:
        """Heads of keys and values in each of them."""
        ...

    @property
    def head_dim(self) -> int:
        """Width of such a head."""
        ...


class Slots(NamedTuple):
    """Where a call's tokens lie: positions (never negative), pages and offsets i32 ``[B, C]``; tables ``[B, W]``."""

    positions: jax.Array
    page: jax.Array
    offset: jax.Array
    tables: jax.Array


def init_kv(
    config: CacheShape, num_pages: int, page_size: int, dtype: DType, sharding: NamedSharding | None = None
) -> KV:
    """Allocate an empty cache.

    Args:
        config: whose sizes.
        num_pages: pages in all, the garbage page 0 included.
        page_size: positions in a page.
        dtype: how the model's weights are held. ``int8`` has a float32 cache on a CPU, a bfloat16 one elsewhere.
        sharding: how the arrays lie over several devices.
    """
    shape = (num_pages, config.num_kv_heads, page_size, config.head_dim)
    kind = _storage(dtype, jax.default_backend())
    # Zeros, not empty: NaN in an unused page times probability 0 is NaN.
    return [
        (jnp.zeros(shape, kind, device=sharding), jnp.zeros(shape, kind, device=sharding))
        for _ in range(config.num_layers)
    ]


def _storage(dtype: DType, backend: str) -> jnp.dtype:
    if backend != "cpu":
        return jnp.dtype("float32" if dtype == "float32" else "bfloat16")
    # XLA:CPU has no bfloat16 scatter: it would convert the whole pool to float32 and back in every step.
    return jnp.dtype("uint16" if dtype == "bfloat16" else "float32")


def activation_dtype(kv: KV) -> jnp.dtype:
    """The dtype that a model with this cache computes in: float32 or bfloat16."""
    return jnp.dtype("float32" if kv[0][0].dtype == jnp.float32 else "bfloat16")


def find_slots(kv: KV, positions: jax.Array, page_tables: jax.Array) -> Slots:
    """Locate tokens: see `forward` for the arguments. Padding (negative positions) goes to the garbage page."""
    page_size = kv[0][0].shape[2]
    clipped = jnp.maximum(positions, 0)
    page = jnp.take_along_axis(page_tables, clipped // page_size, axis=1)
    return Slots(clipped, jnp.where(positions < 0, 0, page), clipped % page_size, page_tables)


def write_tokens(cache: jax.Array, slots: Slots, rows: jax.Array) -> jax.Array:
    """Store ``rows [B, C, num_kv_heads, head_dim]`` (any float dtype) at their slots."""
    if cache.dtype == jnp.uint16:
        rows = jax.lax.bitcast_convert_type(rows.astype(jnp.bfloat16), jnp.uint16)
    return cache.at[slots.page, :, slots.offset].set(rows.astype(cache.dtype))


def copy_out(cache: KV, pages: jax.Array) -> jax.Array:
    """Copy whole pages, ``i32 [N]``: ``[N, layers, 2, num_kv_heads, page_size, head_dim]``, keys before values."""
    return jnp.stack([jnp.stack([layer[0][pages], layer[1][pages]], axis=1) for layer in cache], axis=1)


def copy_in(cache: KV, pages: jax.Array, content: jax.Array) -> KV:
    """Undo `copy_out`, with other page numbers perhaps; donate the cache."""
    return [
        (layer[0].at[pages].set(content[:, number, 0]), layer[1].at[pages].set(content[:, number, 1]))
        for number, layer in enumerate(cache)
    ]


def read_pages(cache: jax.Array, tables: jax.Array) -> jax.Array:
    """Gather whole pages: ``[B, num_kv_heads, W * page_size, head_dim]``, in a dtype to multiply with."""
    pages = cache[tables].swapaxes(1, 2)
    if cache.dtype == jnp.uint16:
        # A bfloat16 is the upper half of a float32; XLA:CPU multiplies float32 best.
        pages = jax.lax.bitcast_convert_type(pages.astype(jnp.uint32) << 16, jnp.float32)
    batch, heads, width, page_size, dim = pages.shape
    return pages.reshape(batch, heads, width * page_size, dim)
