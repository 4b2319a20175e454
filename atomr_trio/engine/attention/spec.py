"""What the back-ends of attention have in common."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from atomr_trio.engine.kv_cache import LayerCache, Slots

__all__ = ["Attend", "AttentionSpec"]


class AttentionSpec(NamedTuple):
    """How one layer attends. Static: part of what a program is compiled for.

    Args:
        scale: factor of the scores.
        window: positions that a token sees, its own included; 0 is all.
        soft_cap: scores are bent to stay within this, if it is given.
    """

    scale: float
    window: int = 0
    soft_cap: float | None = None


Attend = Callable[
    [AttentionSpec, LayerCache, jax.Array, jax.Array, jax.Array, Slots],
    tuple[jax.Array, LayerCache],
]
"""A back-end: stores new keys and values in a layer's cache, and lets queries attend to what it holds then.

``attend(spec, cache, q, k, v, slots)`` with ``q [B, C, heads, D]`` and ``k, v [B, C, kv_heads, D]`` of any float dtype
returns float32 ``[B, C, heads * D]`` and the new cache. A token sees every position up to its own, of its own row.
"""
