"""Rotary position embedding, half-split form, in float32."""

import jax
import jax.numpy as jnp

__all__ = ["angles", "rotate"]


def angles(positions: jax.Array, inv_freq: jax.Array, amplitude: float = 1.0) -> tuple[jax.Array, jax.Array]:
    """Return ``amplitude`` times cosine and sine for i32 positions ``[...]``: float32 ``[..., head_dim / 2]`` each."""
    theta = positions[..., None].astype(jnp.float32) * inv_freq
    if amplitude == 1.0:
        return jnp.cos(theta), jnp.sin(theta)
    return jnp.cos(theta) * amplitude, jnp.sin(theta) * amplitude


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotate the pairs ``(i, i + head_dim / 2)`` of ``x[..., head_dim]``; returns float32."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
