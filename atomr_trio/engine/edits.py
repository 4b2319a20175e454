# pyright: reportUnknownMemberType=false
"""Changes to single logits: the bias of a request, and penalties for what its prompt and answer hold already.

A row carries a list of the tokens that it changes, not an array as wide as the vocabulary: nobody pays for them but
who uses them. The lists live on the host, one per sequence, and grow with it. The device applies them in this order:
bias, repetition, frequency, presence.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from attrs import define, field

from .frames import SequenceRequest
from .packing import MAX_BANNED, NO_TOKEN, Ints, Row, banned_ids
from .sequence import Sequence

__all__ = ["EditInputs", "TokenEdits", "edit", "edit_width", "needs_edits", "pack_edits", "unpack_edits"]

_HEADER = 3
_COLUMNS = 3
_FIRST_CAPACITY = 64
_UNSEEN = -1

# Far beyond any logit, far from overflow: a penalty never makes an infinity of a finite logit.
_LARGEST = 1e30


class EditInputs(NamedTuple):
    """How the logits of each row are changed, on the device.

    Args:
        repetition: f32 ``[B]``; 1 changes nothing.
        presence: f32 ``[B]``; 0 changes nothing.
        frequency: f32 ``[B]``; 0 changes nothing.
        ids: i32 ``[B, L]``, no token twice in a row; out of range where there is none.
        bias: f32 ``[B, L]``; minus infinity forbids the token.
        counts: i32 ``[B, L]``: how often the answer has the token; 0 if only the prompt has it, -1 if neither.
    """

    repetition: jax.Array
    presence: jax.Array
    frequency: jax.Array
    ids: jax.Array
    bias: jax.Array
    counts: jax.Array


def edit_width(entries: int) -> int:
    """Return how many int32 a row has that changes at most this many logits."""
    return _HEADER + _COLUMNS * entries


def unpack_edits(packed: jax.Array) -> EditInputs:
    """Take packed edits apart, on the device."""
    floats = jax.lax.bitcast_convert_type(packed, jnp.float32)
    ids, bias, counts = (_HEADER + at * (packed.shape[1] - _HEADER) // _COLUMNS for at in range(_COLUMNS))
    parts = (packed[:, ids:bias], floats[:, bias:counts], packed[:, counts:])
    return EditInputs(floats[:, 0], floats[:, 1], floats[:, 2], *parts)


def edit(logits: jax.Array, packed: jax.Array) -> jax.Array:
    """Apply edits.

    Args:
        logits: f32 ``[B, V]``.
        packed: i32 ``[B, edit_width(L)]``.

    Returns:
        f32 ``[B, V]``; logits that are not listed keep their bits.
    """
    inputs = unpack_edits(packed)
    found = jnp.take_along_axis(logits, jnp.minimum(inputs.ids, logits.shape[1] - 1), axis=1)
    changed = _penalised(found + inputs.bias, inputs)
    rows = jnp.arange(logits.shape[0])[:, None]
    return logits.at[rows, inputs.ids].set(changed, mode="drop")


def _penalised(logits: jax.Array, inputs: EditInputs) -> jax.Array:
    repetition = jnp.where(inputs.counts >= 0, inputs.repetition[:, None], 1.0)
    repeated = jnp.where(logits > 0, logits / repetition, logits * repetition)
    used = jnp.maximum(inputs.counts, 0).astype(jnp.float32)
    flat = inputs.frequency[:, None] * used + inputs.presence[:, None] * (used > 0)
    # What was forbidden stays so, and what was no number must still be seen as such.
    return jnp.where(jnp.isfinite(logits), jnp.clip(repeated - flat, -_LARGEST, _LARGEST), logits)


def needs_edits(request: SequenceRequest) -> bool:
    """Whether a request changes logits."""
    return bool(request.logit_bias) or _counts_output(request) or _bans_many(request)


def _counts_output(request: SequenceRequest) -> bool:
    return _counts_prompt(request) or request.presence_penalty != 0 or request.frequency_penalty != 0


def _counts_prompt(request: SequenceRequest) -> bool:
    return request.repetition_penalty != 1


def _bans_many(request: SequenceRequest) -> bool:
    return request.min_tokens > 0 and len(banned_ids(request)) > MAX_BANNED


def _no_entries() -> Ints:
    return np.zeros((_COLUMNS, _FIRST_CAPACITY), np.int32)


@define(eq=False)
class TokenEdits:
    """The changes that one sequence makes, kept up with its tokens."""

    _request: SequenceRequest
    # Rows: token, bits of its bias, count.
    _table: Ints = field(init=False, factory=_no_entries)
    _slots: dict[int, int] = field(init=False, factory=dict[int, int])
    _seen: int = field(init=False, default=0)
    _bans: list[int] = field(init=False, factory=list[int])

    @classmethod
    def of(cls, sequence: Sequence) -> "TokenEdits":
        """Return the changes that a sequence makes to the logits of its next token."""
        edits = cls(sequence.request)
        for token, bias in sequence.request.logit_bias:
            slot = edits._slot(token)
            edits._table[1].view(np.float32)[slot] += np.float32(bias)
        if _bans_many(sequence.request):
            edits._bans = [edits._slot(token) for token in banned_ids(sequence.request)]
        edits.keep_up(sequence)
        return edits

    @property
    def size(self) -> int:
        """How many logits are changed."""
        return len(self._slots)

    def keep_up(self, sequence: Sequence) -> None:
        """Count the tokens that the sequence got since the last time."""
        prompt, total = sequence.prompt_len, len(sequence.tokens)
        if self._seen == 0 and _counts_prompt(self._request):
            for token in dict.fromkeys(sequence.tokens[:prompt]):
                self._count(token, 0)
        if _counts_output(self._request):
            for token in sequence.tokens[max(prompt, self._seen) :]:
                self._count(token, 1)
        self._seen = total

    def pack_into(self, target: Ints, *, bans_ends: bool) -> None:
        """Write these changes as a row, i32 ``[edit_width(L)]`` with room for ``size`` of them."""
        asked = self._request
        penalties = asked.repetition_penalty, asked.presence_penalty, asked.frequency_penalty
        target[:_HEADER].view(np.float32)[:] = penalties
        columns = target[_HEADER:].reshape(_COLUMNS, -1)
        columns[:, : self.size] = self._table[:, : self.size]
        if bans_ends:
            columns[1].view(np.float32)[self._bans] = -math.inf

    def _count(self, token: int, times: int) -> None:
        # Not in one expression: a new slot may bring a new table.
        slot = self._slot(token)
        self._table[2, slot] = max(0, self._table[2, slot]) + times

    def _slot(self, token: int) -> int:
        slot = self._slots.get(token)
        if slot is None:
            slot = self._slots[token] = len(self._slots)
            if slot == self._table.shape[1]:
                self._table = np.concatenate([self._table, np.zeros_like(self._table)], axis=1)
            self._table[:, slot] = token, 0, _UNSEEN
        return slot


def pack_edits(rows: int, entries: int, edits: list[tuple[Row | None, TokenEdits | None]]) -> Ints:
    """Return i32 ``[rows, edit_width(entries)]``; rows without edits, and beyond those given, change nothing."""
    packed = np.zeros((rows, edit_width(entries)), np.int32)
    packed[:, _HEADER : _HEADER + entries] = NO_TOKEN
    for target, (row, own) in zip(packed, edits, strict=False):
        if row is not None and own is not None:
            own.pack_into(target, bans_ends=row.bans_ends)
    return packed
