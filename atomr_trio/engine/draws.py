# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""What the device computes to draw a token of each row, and to say what the logits have to say of it."""

import jax
import jax.numpy as jnp

from .packing import DrawInputs, unpack_draws
from .sampler import greedy, sample, token_logprobs, top_logprobs
from .validation import MAX_TOP_LOGPROBS

__all__ = ["draw", "draw_and_keep", "draw_as", "report"]


def draw(raw: jax.Array, packed: jax.Array) -> jax.Array:
    """Draw a token per row.

    Args:
        raw: f32 ``[B, V]``, logits.
        packed: i32 ``[B, DRAW_WIDTH]``.

    Returns:
        i32 ``[B, 2]``: the token, and the bits of its log probability under the raw logits.
    """
    return draw_as(raw, unpack_draws(packed))


def draw_as(raw: jax.Array, inputs: DrawInputs) -> jax.Array:
    """Draw as `draw` does, with what it reads taken apart."""
    sampling, _, banned = inputs
    rows = jnp.arange(raw.shape[0])[:, None]
    allowed = raw.at[rows, banned].set(-jnp.inf, mode="drop")
    # Most batches are greedy, and the filters of `sample` read the whole vocabulary several times.
    ids = jax.lax.cond(
        jnp.any(sampling.temperature > 0),
        lambda: sample(allowed, sampling)[0],
        lambda: greedy(allowed)[0],
    )
    bits = jax.lax.bitcast_convert_type(token_logprobs(raw, ids), jnp.int32)
    return jnp.stack([ids, bits], axis=1)


def draw_and_keep(raw: jax.Array, packed: jax.Array, last: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draw as `draw` does, and leave the tokens in ``last``, i32 ``[S]``, for a next step that cannot wait for them."""
    drawn = draw(raw, packed)
    return drawn, last.at[unpack_draws(packed).place].set(drawn[:, 0], mode="drop")


def report(raw: jax.Array, drawn: jax.Array) -> jax.Array:
    """Say what the raw logits have to say of drawn tokens.

    Args:
        raw: f32 ``[B, V]``, logits before masks and edits.
        drawn: i32 ``[B, 2]``, from `draw` of the masked and edited logits.

    Returns:
        i32 ``[B, 2 + 2 * n]``, ``n = min(MAX_TOP_LOGPROBS, V)``: as `draw` for the raw logits, then the ``n`` best
        tokens, then the bits of their log probabilities.
    """
    ids = drawn[:, 0]
    # A row that had nothing to draw from has to be seen, however sound its raw logits are.
    broken = jnp.isnan(jax.lax.bitcast_convert_type(drawn[:, 1], jnp.float32))
    logprobs = jnp.where(broken, jnp.nan, token_logprobs(raw, ids))
    best, scores = top_logprobs(raw, min(MAX_TOP_LOGPROBS, raw.shape[1]))
    floats = jnp.concatenate([logprobs[:, None], scores], axis=1)
    bits = jax.lax.bitcast_convert_type(floats, jnp.int32)
    return jnp.concatenate([ids[:, None], bits[:, :1], best, bits[:, 1:]], axis=1)
