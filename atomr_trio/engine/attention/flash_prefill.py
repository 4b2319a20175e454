# pyright: reportUnknownMemberType=false
"""A chunk of one prompt attends to all of its sequence so far: flash attention by cuDNN, on the GPU.

cuDNN's causal mask, as `jax.nn.dot_product_attention` asks for it, is aligned at the top left: query 0 sees key 0 and
no other. A chunk that starts at position s > 0 needs it shifted by s, which is not to be had, nor is s known when the
program is compiled. Two calls (the past without a mask, the chunk with a causal one) could be weighed together, but the
log-sum-exp comes back rounded to the queries' dtype, and 8 bits of it are far too few. So the mask is spelled out, a
number for each pair of query and key, which cuDNN adds to the scores of all heads; and a length is given, so that
nothing beyond the last key is computed.

The mask was checked on the CPU, through XLA's implementation of the same call; cuDNN's is to be checked on a GPU.
"""

from typing import Literal

import jax
import jax.numpy as jnp

__all__ = ["flash_prefill", "supports"]

_AMPERE, _HOPPER = (8, 0), (9, 0)


def supports(
    *, dtype: str, head_dim: int, chunk: int, soft_cap: float | None, compute_capability: tuple[int, int] = _HOPPER
) -> bool:
    """Whether `flash_prefill` can compute this.

    Args:
        dtype: of the cache, by name; float16 and bfloat16 will do.
        head_dim: a multiple of 8, up to 128, from Hopper on up to 256.
        chunk: query tokens; one alone is better decoded.
        soft_cap: there must be none.
        compute_capability: of the GPU, as (major, minor).
    """
    widest = 256 if compute_capability >= _HOPPER else 128 if compute_capability >= _AMPERE else 0
    fits = head_dim % 8 == 0 and head_dim <= widest
    return dtype in ("bfloat16", "float16") and fits and chunk > 1 and soft_cap is None


def flash_prefill(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    start: jax.Array,
    *,
    scale: float,
    window: int = 0,
    implementation: Literal["cudnn", "xla"] = "cudnn",
) -> jax.Array:
    """Attend with a chunk of consecutive tokens of one sequence, as `reference.attend` defines it.

    Args:
        q: ``[C, heads, D]``, any float dtype; rounded to that of the keys. Query i has position ``start + i``; those
            after the end of the prompt are padding, and their results garbage.
        k: ``[kv_heads, T, D]``, see `supports`: from position 0 on, the chunk's own keys included. What follows them is
            not seen, but must be numbers.
        v: the same.
        start: i32 scalar: position of the first query.
        scale: factor of the scores.
        window: positions that a token sees, its own included; 0 is all.
        implementation: ``xla`` is the same call without cuDNN, for tests.

    Returns:
        ``[C, heads * D]`` in the dtype of the keys.
    """
    chunk, heads, dim = q.shape
    time = k.shape[1]
    # Heads go inside time: where the keys are gathered from pages, one pass does both.
    mixed = jax.nn.dot_product_attention(
        q.astype(k.dtype)[None],
        k.swapaxes(0, 1)[None],
        v.swapaxes(0, 1)[None],
        mask=_seen(chunk, time, start, window)[None, None],
        scale=scale,
        key_value_seq_lengths=jnp.minimum(start + chunk, time)[None].astype(jnp.int32),
        implementation=implementation,
    )
    return mixed.reshape(chunk, heads * dim)


def _seen(chunk: int, time: int, start: jax.Array, window: int) -> jax.Array:
    """Bool ``[C, T]``: which keys a query sees. Padding beyond the last key sees the last: never none at all."""
    query, key = jnp.minimum(start + jnp.arange(chunk), time - 1)[:, None], jnp.arange(time)
    return (key <= query) & ((key > query - window) | (window == 0))
