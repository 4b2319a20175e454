# pyright: reportUnknownMemberType=false
"""Which tokens a row may draw at all: a bit per token, from whoever guides the answer (a grammar, a schema)."""

import logging
from collections.abc import Sequence as Tokens
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from atomr_trio.core import InferenceError

from .packing import Ints, Row

__all__ = ["TokenGuide", "mask_words", "pack_masks", "restrict"]

logger: logging.Logger = logging.getLogger(__name__)

_BITS = 32


class TokenGuide(Protocol):
    """Decides, token by token, what an answer may say next."""

    def allowed(self, generated: Tokens[int], /) -> Ints:
        """Return i32 ``[mask_words(V)]``: bit ``t % 32`` of word ``t // 32`` is set if token ``t`` may come next.

        Called before each draw, while the device computes what is drawn from, and again for the same tokens if a step
        is repeated. If no bit is set, or this raises, the request ends with an error: its own, if that is a typed one.

        Args:
            generated: the answer so far.
        """
        ...


def mask_words(vocab_size: int) -> int:
    """Return how many int32 a mask has."""
    return -(-vocab_size // _BITS)


def restrict(logits: jax.Array, masks: jax.Array) -> jax.Array:
    """Forbid tokens.

    Args:
        logits: f32 ``[B, V]``.
        masks: i32 ``[B, mask_words(V)]``; bits beyond V do not matter.

    Returns:
        f32 ``[B, V]``: minus infinity where the bit is not set, the same bits elsewhere.
    """
    bits = (masks[:, :, None] >> jnp.arange(_BITS, dtype=jnp.int32)) & 1
    return jnp.where(bits.reshape(masks.shape[0], -1)[:, : logits.shape[1]] == 1, logits, -jnp.inf)


def pack_masks(rows: int, words: int, guided: list[tuple[Row | None, TokenGuide | None]]) -> Ints:
    """Return i32 ``[rows, words]``; rows without a guide, and beyond those given, may draw anything."""
    packed = np.full((rows, words), -1, np.int32)
    for target, (row, guide) in zip(packed, guided, strict=False):
        if row is not None and guide is not None:
            _ask(guide, row, target)
    return packed


def _ask(guide: TokenGuide, row: Row, target: Ints) -> None:
    sequence = row.sequence
    try:
        target[:] = guide.allowed(sequence.tokens[sequence.prompt_len :])
    except InferenceError as refusal:
        sequence.refusal = refusal
        target[:] = 0
    except Exception as error:
        # A guide is foreign code: its failure must be its own request's, not that of all who share the step.
        logger.error("the guide of request %d failed", sequence.id, exc_info=error)
        target[:] = 0
