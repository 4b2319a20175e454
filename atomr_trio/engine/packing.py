"""How a step's inputs and results travel: one int32 array each way, because every array costs a transfer.

A row is ``header | tokens | page table``. Floats and seeds travel as their bits.
"""

import struct
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from .buckets import ProgramKey
from .sampler import SamplingState, seed_words
from .sequence import Sequence

__all__ = ["MAX_BANNED", "StepInputs", "input_width", "pack_row", "pack_rows", "unpack"]

MAX_BANNED = 8
"""Token ids that a row can forbid (the end tokens, while ``min_tokens`` are not reached)."""

# start, count, temperature, top_k, top_p, min_p, seed, banned
_HEADER = struct.Struct(f"<2i f i 2f 2I {MAX_BANNED}i")
_HEADER_INTS = _HEADER.size // 4
# Out of range of any vocabulary: scattering there does nothing. Not -1, which would be the last token.
_NO_TOKEN = 2**31 - 1

Ints = npt.NDArray[np.int32]


class StepInputs(NamedTuple):
    """What a step program reads, on the device.

    Args:
        tokens: i32 ``[B, C]``.
        positions: i32 ``[B, C]``; -1 is padding.
        last: i32 ``[B]``: index of each row's last token.
        page_tables: i32 ``[B, W]``.
        sampling: parameters of the rows.
        banned: i32 ``[B, MAX_BANNED]``.
        next_tokens: i32 ``[B, C]``, only where the key is scored, else of width 0.
    """

    tokens: jax.Array
    positions: jax.Array
    last: jax.Array
    page_tables: jax.Array
    sampling: SamplingState
    banned: jax.Array
    next_tokens: jax.Array


def input_width(key: ProgramKey) -> int:
    """Return how many int32 a row of this program has."""
    return _HEADER_INTS + _token_columns(key) + key.pages


def _token_columns(key: ProgramKey) -> int:
    return key.chunk + key.scored


def pack_rows(key: ProgramKey, work: "list[tuple[Sequence, int, int]]") -> Ints:
    """Return i32 ``[rows, input_width(key)]`` for (sequence, first token, token count) of each row, padded."""
    packed = np.zeros((key.rows, input_width(key)), np.int32)
    for row, (sequence, start, count) in zip(packed, work, strict=False):
        pack_row(row, key, sequence, start, count)
    return packed


def pack_row(row: Ints, key: ProgramKey, sequence: Sequence, start: int, count: int) -> None:
    """Fill one zeroed row with tokens ``start .. start + count`` of a sequence."""
    request = sequence.request
    sampling = (request.temperature, request.top_k, request.top_p, request.min_p, *seed_words(request.seed))
    _HEADER.pack_into(row.data, 0, start, count, *sampling, *_banned(sequence))
    shown = sequence.tokens[start : start + count + key.scored]
    row[_HEADER_INTS : _HEADER_INTS + len(shown)] = shown
    # Pages beyond the table's width belong to tokens that this step does not see.
    pages = sequence.pages[: key.pages]
    first = _HEADER_INTS + _token_columns(key)
    row[first : first + len(pages)] = pages


def _banned(sequence: Sequence) -> list[int]:
    request = sequence.request
    ids: list[int] = []
    if sequence.generated < request.min_tokens:
        ids = [*request.stop_ids, *([] if request.ignore_eos else request.eos_ids)]
    return ids + [_NO_TOKEN] * (MAX_BANNED - len(ids))


def unpack(key: ProgramKey, packed: jax.Array) -> StepInputs:
    """Take the packed array apart, on the device."""
    header, tokens, tables = jnp.split(packed, (_HEADER_INTS, _HEADER_INTS + _token_columns(key)), axis=1)
    start, count = header[:, 0], header[:, 1]
    offsets = jnp.arange(key.chunk)
    floats = jax.lax.bitcast_convert_type(header, jnp.float32)
    seed = jax.lax.bitcast_convert_type(header[:, 6:8], jnp.uint32)
    return StepInputs(
        tokens=tokens[:, : key.chunk],
        positions=jnp.where(offsets < count[:, None], start[:, None] + offsets, -1),
        last=jnp.maximum(count - 1, 0),
        page_tables=tables,
        sampling=SamplingState(floats[:, 2], header[:, 3], floats[:, 4], floats[:, 5], seed, start + count),
        banned=header[:, 8 : 8 + MAX_BANNED],
        next_tokens=tokens[:, 1 : 1 + key.chunk * key.scored],
    )
