# pyright: reportUnknownMemberType=false
"""What attention is: the definition that every back-end is held against. Written to be right, not to be fast."""

import jax
import jax.numpy as jnp

__all__ = ["attend"]


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    positions: jax.Array,
    *,
    scale: float,
    window: int = 0,
    soft_cap: float | None = None,
) -> jax.Array:
    """Attend: a token at position p sees the keys at positions ``max(0, p - window + 1) .. p`` of its row.

    Args:
        q: ``[B, C, heads, D]``, any float dtype. Heads ``g * n .. g * n + n - 1`` of ``n = heads / kv_heads`` share
            key-value head ``g``.
        k: ``[B, kv_heads, T, D]``; the key of position t is ``k[:, :, t]``.
        v: the same.
        positions: i32 ``[B, C]``, from 0 to ``T - 1``.
        scale: factor of the scores.
        window: positions that a token sees, its own included; 0 is all up to its own.
        soft_cap: scores become ``soft_cap * tanh(score / soft_cap)``, if it is given.

    Returns:
        float32 ``[B, C, heads * D]``.
    """
    batch, chunk, heads, dim = q.shape
    shared_by = heads // k.shape[1]
    q, k, v = (x.astype(jnp.float32) for x in (q, k, v))
    k, v = jnp.repeat(k, shared_by, axis=1), jnp.repeat(v, shared_by, axis=1)
    scores = jnp.einsum("bchd,bhtd->bhct", q, k, precision="highest") * scale
    if soft_cap is not None:
        scores = soft_cap * jnp.tanh(scores / soft_cap)
    key, query = jnp.arange(k.shape[2]), positions[:, None, :, None]
    seen = (key <= query) & ((key > query - window) | (window == 0))
    weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1)
    return jnp.einsum("bhct,bhtd->bchd", weights, v, precision="highest").reshape(batch, chunk, heads * dim)
