# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Decoding several tokens of each row in one program: forward, draw, and once more with the token that was drawn.

A small model on a fast device computes a step sooner than the host can send the next one. The loop has a static number
of turns: otherwise the host would be asked after each of them whether to go on. A row whose answer ends on the way is
computed all the same, and the rest of it thrown away.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .attention import Attend, View, attend_view, joined, parted
from .buckets import ProgramKey
from .draws import draw_as
from .model import KV
from .packing import DRAW_WIDTH, DrawInputs, Ints, Rows, pack_draws, pack_steps, step_width, unpack_draws, unpack_steps
from .served_model import ServedModel

__all__ = ["loop_pages", "loop_view", "loop_width", "pack_loop"]


def loop_width(key: ProgramKey) -> int:
    """Return how many int32 a row of this loop has: those of a step, then those of a draw."""
    return step_width(key.once) + DRAW_WIDTH


def pack_loop(key: ProgramKey, rows: Rows) -> Ints:
    """Return i32 ``[key.rows, loop_width(key)]``; row ``i`` leaves its last token in place ``i``."""
    return np.concatenate([pack_steps(key.once, rows), pack_draws(key, rows)], axis=1)


def loop_pages(
    model: ServedModel, attend: Attend, key: ProgramKey, params: Any, kv: KV, packed: jax.Array, last: jax.Array
) -> tuple[KV, jax.Array, jax.Array]:
    """Decode ``key.chunk`` tokens of each row, with a back-end of attention that reads pages.

    Args:
        model: the model (static).
        attend: the back-end of attention (static).
        key: the shape (static).
        params: the weights.
        kv: the cache; donate it.
        packed: i32 ``[B, loop_width(key)]``; no row bans an end token.
        last: i32 ``[S]``, the tokens that the step before drew.

    Returns:
        The new cache; i32 ``[chunk, B, 2]``, as `draw` returns it for each token; and ``last`` with the last of them.
    """
    return _loop(model, attend, key, params, kv, packed, last)


def loop_view(
    model: ServedModel, key: ProgramKey, params: Any, kv: KV, view: View, packed: jax.Array, last: jax.Array
) -> tuple[KV, View, jax.Array, jax.Array]:
    """Decode as `loop_pages` does, with a view, which is donated, too."""
    cache, drawn, last = _loop(model, attend_view, key, params, joined(kv, view), packed, last)
    return *parted(cache), drawn, last


def _loop(
    model: ServedModel, attend: Attend, key: ProgramKey, params: Any, cache: KV, packed: jax.Array, last: jax.Array
) -> tuple[KV, jax.Array, jax.Array]:
    steps, draws = jnp.split(packed, (step_width(key.once),), axis=1)
    inputs, drawing = unpack_steps(key.once, steps, last), unpack_draws(draws)

    def turn(carry: tuple[KV, jax.Array], offset: jax.Array) -> tuple[tuple[KV, jax.Array], jax.Array]:
        cache, tokens = carry
        positions = jnp.where(inputs.positions < 0, -1, inputs.positions + offset)
        hidden, cache = model.run(params, cache, tokens[:, None], positions, inputs.page_tables, attend)
        drawn = draw_as(model.logits(params, hidden[:, 0]), _at(drawing, positions[:, 0] + 1))
        return (cache, drawn[:, 0]), drawn

    # The cache is carried: as something that goes in and out of each turn it would be copied.
    (cache, tokens), drawn = jax.lax.scan(turn, (cache, inputs.tokens[:, 0]), jnp.arange(key.chunk))
    return cache, drawn, last.at[drawing.place].set(tokens, mode="drop")


def _at(drawing: DrawInputs, position: jax.Array) -> DrawInputs:
    return drawing._replace(sampling=drawing.sampling._replace(position=position))
