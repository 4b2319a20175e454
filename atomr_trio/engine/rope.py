"""Rotary position embedding, half-split form, in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from .config import ModelConfig

__all__ = ["angles", "inverse_frequencies", "rotate"]


def inverse_frequencies(config: ModelConfig) -> npt.NDArray[np.float32]:
    """Return the rotation per position of each pair, in radians: ``[head_dim / 2]``."""
    exponent = np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim
    return (config.rope_theta**-exponent / config.rope_scale).astype(np.float32)


def angles(positions: jax.Array, inv_freq: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return cosine and sine for i32 positions ``[...]``: each ``[..., head_dim / 2]`` float32."""
    theta = positions[..., None].astype(jnp.float32) * inv_freq
    return jnp.cos(theta), jnp.sin(theta)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotate the pairs ``(i, i + head_dim / 2)`` of ``x[..., head_dim]``; returns float32."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
