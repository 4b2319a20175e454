# pyright: reportUnknownMemberType=false
"""How a step's inputs travel: packed into int32 arrays, because every array costs a transfer.

A row of a step is ``start, count, source | tokens | page table``; a row of a draw is its sampling parameters. Floats
and seeds travel as their bits.
"""

import struct
from collections.abc import Sequence as SequenceOf
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from attrs import frozen

from .buckets import ProgramKey
from .frames import SequenceRequest
from .sampler import SamplingState, seed_words
from .sequence import Sequence

__all__ = [
    "DRAW_WIDTH",
    "MAX_BANNED",
    "NO_TOKEN",
    "DrawInputs",
    "Ints",
    "Row",
    "Rows",
    "StepInputs",
    "banned_ids",
    "pack_draws",
    "pack_steps",
    "step_width",
    "unpack_draws",
    "unpack_steps",
]

MAX_BANNED = 8
"""End tokens that a draw can forbid itself, while ``min_tokens`` are not reached; more of them take an edit."""

NO_TOKEN = 2**31 - 1
"""Out of range of any vocabulary: scattering there does nothing. Not -1, which would be the last token."""

# temperature, top_k, top_p, min_p, seed, position, place, banned
_DRAW = struct.Struct(f"<f i 2f 2I 2i {MAX_BANNED}i")
DRAW_WIDTH = _DRAW.size // 4
_PLACE = 7
# start, count, source
_HEADER = 3
_SOURCE = 2

Ints = npt.NDArray[np.int32]


@frozen
class Row:
    """Tokens ``start .. start + count`` of a sequence: the work of one row.

    Args:
        sequence: whose.
        start: position of the first.
        count: how many.
        source: the place at which the step before left the first token, if the host has not read it yet; -1 if it has.
    """

    sequence: Sequence
    start: int
    count: int
    source: int = -1

    @property
    def end(self) -> int:
        """Position of the token that can be drawn after this row."""
        return self.start + self.count

    @property
    def bans_ends(self) -> bool:
        """The token after this row comes before ``min_tokens``: it may not be one that ends the answer."""
        return self.end - self.sequence.prompt_len < self.sequence.request.min_tokens


Rows = SequenceOf[Row | None]
"""The rows of a program in their order; ``None`` where nobody is."""


class StepInputs(NamedTuple):
    """What a step reads, on the device.

    Args:
        tokens: i32 ``[B, C]``.
        positions: i32 ``[B, C]``; -1 is padding.
        last: i32 ``[B]``: index of each row's last token.
        page_tables: i32 ``[B, W]``.
        next_tokens: i32 ``[B, C]``; ``[B, 0]`` unless scored.
    """

    tokens: jax.Array
    positions: jax.Array
    last: jax.Array
    page_tables: jax.Array
    next_tokens: jax.Array


class DrawInputs(NamedTuple):
    """How rows are drawn, on the device.

    Args:
        sampling: the parameters.
        place: i32 ``[B]``: where the token is left for the next step; out of range: nowhere.
        banned: i32 ``[B, MAX_BANNED]``, out of range where there is none.
    """

    sampling: SamplingState
    place: jax.Array
    banned: jax.Array


def step_width(key: ProgramKey) -> int:
    """Return how many int32 a row of this step has."""
    return _HEADER + _token_columns(key) + key.pages


def _token_columns(key: ProgramKey) -> int:
    return key.chunk + (key.kind == "scored")


def pack_steps(key: ProgramKey, rows: Rows) -> Ints:
    """Return i32 ``[key.rows, step_width(key)]``; rows that are ``None``, and beyond those given, are padding."""
    packed = np.zeros((key.rows, step_width(key)), np.int32)
    packed[:, _SOURCE] = -1
    tokens, pages = _HEADER, _HEADER + _token_columns(key)
    for target, row in zip(packed, rows, strict=False):
        if row is None:
            continue
        target[:tokens] = row.start, row.count, row.source
        shown = row.sequence.tokens[row.start : row.end + (key.kind == "scored")]
        target[tokens : tokens + len(shown)] = shown
        # Pages beyond the table's width belong to tokens that this step does not see.
        table = row.sequence.pages[: key.pages]
        target[pages : pages + len(table)] = table
    return packed


def unpack_steps(key: ProgramKey, packed: jax.Array, last: jax.Array) -> StepInputs:
    """Take a packed step apart, on the device. ``last``: i32 ``[S]``, the tokens that the step before drew."""
    header, tokens, tables = jnp.split(packed, (_HEADER, _HEADER + _token_columns(key)), axis=1)
    start, count, source = header[:, :1], header[:, 1:2], header[:, _SOURCE]
    first = jnp.where(source < 0, tokens[:, 0], last[jnp.maximum(source, 0)])
    tokens = jnp.concatenate([first[:, None], tokens[:, 1:]], axis=1)
    offsets = jnp.arange(key.chunk)
    return StepInputs(
        tokens=tokens[:, : key.chunk],
        positions=jnp.where(offsets < count, start + offsets, -1),
        last=jnp.maximum(count[:, 0] - 1, 0),
        page_tables=tables,
        next_tokens=tokens[:, 1 : 1 + key.chunk * (key.kind == "scored")],
    )


def pack_draws(key: ProgramKey, rows: Rows, first_place: int = 0) -> Ints:
    """Return i32 ``[key.rows, DRAW_WIDTH]``; padding is greedy.

    Args:
        key: the program's shape.
        rows: ``None`` is padding, and so is what lies beyond them.
        first_place: where the first row's token is left for the next step; the others' follow it.
    """
    packed = np.zeros((key.rows, DRAW_WIDTH), np.int32)
    packed[:, _PLACE] = NO_TOKEN
    for index, (target, row) in enumerate(zip(packed, rows, strict=False)):
        if row is None:
            continue
        asked = row.sequence.request
        seed = seed_words(asked.seed)
        values = (asked.temperature, asked.top_k, asked.top_p, asked.min_p, *seed, row.end, first_place + index)
        _DRAW.pack_into(target.data, 0, *values, *_banned(row))
    return packed


def banned_ids(request: SequenceRequest) -> list[int]:
    """Return the tokens that may not be drawn before ``min_tokens``."""
    return list(dict.fromkeys([*request.stop_ids, *([] if request.ignore_eos else request.eos_ids)]))


def _banned(row: Row) -> list[int]:
    ids = banned_ids(row.sequence.request) if row.bans_ends else []
    if len(ids) > MAX_BANNED:
        ids = []
    return ids + [NO_TOKEN] * (MAX_BANNED - len(ids))


def unpack_draws(packed: jax.Array) -> DrawInputs:
    """Take packed draws apart, on the device."""
    floats = jax.lax.bitcast_convert_type(packed, jnp.float32)
    seed = jax.lax.bitcast_convert_type(packed[:, 4:6], jnp.uint32)
    sampling = SamplingState(floats[:, 0], packed[:, 1], floats[:, 2], floats[:, 3], seed, packed[:, 6])
    return DrawInputs(sampling, packed[:, _PLACE], packed[:, _PLACE + 1 :])
