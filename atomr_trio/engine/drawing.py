"""Draws tokens from logits: which programs that takes, what they read, and what came out.

Most steps need one program, ``sample``. The others come before and after it, and only where a row asks for them: it
is always the same program that draws, so a row's token does not depend on what its batch-mates asked for.

    logits -> mask -> edit -> sample -> report

Masks and edits are made of the answer so far, as the host knows it: while a token of such a sequence is being drawn,
its next step cannot be sent.
"""

from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary

import jax
import numpy as np
from attrs import define, field, frozen

from .buckets import Buckets, ProgramKey
from .edits import TokenEdits, needs_edits, pack_edits
from .masks import TokenGuide, mask_words, pack_masks
from .packing import Ints, Row, Rows, pack_draws
from .sequence import Sequence

__all__ = ["DrawCall", "Drawing", "DrawnToken", "Needs", "read_draws"]

_Program = Callable[..., Any]

# The part of an edit list's room that is used before the next larger program is compiled.
_FULL = 0.75


@frozen
class DrawnToken:
    """What a row drew.

    Args:
        token: its id.
        logprob: its log probability under the raw logits; NaN if there was nothing to draw from.
        top: the most likely tokens under the raw logits, best first, if some row asked for them.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@frozen
class Needs:
    """What the draws of a step take besides ``sample``.

    Args:
        mask: somebody is guided.
        entries: how long the longest list of edits is; 0 if nobody has one.
        report: somebody asks for what `sample` does not tell.
    """

    mask: bool
    entries: int
    report: bool


@frozen
class DrawCall:
    """What one program's logits are drawn for.

    Args:
        rows: what the first of the logits belong to; ``None``: to nobody.
        needs: of these rows.
        first_place: where the first row's token is kept for the next step; the others' follow it.
    """

    rows: Rows
    needs: Needs
    first_place: int = 0


@define
class Drawing:
    """Knows what the open sequences change about their draws.

    Args:
        vocab_size: ``V``.
        buckets: which shapes there are.
    """

    _vocab_size: int
    _buckets: Buckets
    # Weak, because sequences come and go by many ways, and what is kept here must go with them.
    _edits: WeakKeyDictionary[Sequence, TokenEdits] = field(init=False, factory=WeakKeyDictionary[Sequence, TokenEdits])
    _guides: WeakKeyDictionary[Sequence, TokenGuide] = field(
        init=False, factory=WeakKeyDictionary[Sequence, TokenGuide]
    )

    def guide(self, sequence: Sequence, guide: TokenGuide) -> None:
        """Let ``guide`` decide what this sequence may say."""
        self._guides[sequence] = guide

    def needs(self, rows: Iterable[Row]) -> Needs:
        """Return what the draws of these rows take."""
        mask = report = False
        entries = 0
        for row in rows:
            sequence = row.sequence
            guided = sequence in self._guides
            edits = self._edits_of(sequence)
            if edits is not None:
                entries = max(entries, edits.size, 1)
            mask |= guided
            # `sample` tells the log probability under what it was given, which for such rows is not the raw one.
            told_otherwise = guided or edits is not None or sequence.request.top_logprobs > 0
            report |= told_otherwise and sequence.request.logprobs
        return Needs(mask, entries, report)

    def keys(self, needs: Needs, size: int) -> list[ProgramKey]:
        """Return the programs that draw from logits f32 ``[size, V]``."""
        keys = [self._buckets.sample(size)]
        if needs.mask:
            keys.append(ProgramKey("mask", size))
        if needs.entries:
            keys.append(self._buckets.edit(size, needs.entries))
        if needs.report:
            keys.append(ProgramKey("report", size))
        return keys

    def soon(self, needs: Needs, size: int) -> list[ProgramKey]:
        """Return the programs that the next draws may need besides."""
        if not needs.entries:
            return []
        key = self._buckets.edit(size, needs.entries)
        return self._buckets.longer(key) if needs.entries > _FULL * key.chunk else []

    def start(
        self, require: Callable[[ProgramKey], _Program], draw: DrawCall, logits: jax.Array, last: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Dispatch the draws.

        Args:
            require: returns the program of a shape.
            draw: whose they are.
            logits: f32 ``[B, V]``.
            last: i32 ``[S]``, the tokens that the device keeps for the next step.

        Returns:
            i32 ``[B, 2]`` or ``[B, 2 + 2 * n]``, for `read_draws`; and the new ``last``.
        """
        rows, needs = draw.rows, draw.needs
        size = logits.shape[0]
        by_kind = {key.kind: key for key in self.keys(needs, size)}
        allowed = logits
        if needs.mask:
            allowed = require(by_kind["mask"])(allowed, self._masks(rows, size))
        if needs.entries:
            allowed = require(by_kind["edit"])(allowed, self._packed_edits(rows, by_kind["edit"]))
        packed = pack_draws(by_kind["sample"], rows, draw.first_place)
        drawn, last = require(by_kind["sample"])(allowed, packed, last)
        return require(by_kind["report"])(logits, drawn) if needs.report else drawn, last

    def _masks(self, rows: Rows, size: int) -> Ints:
        guided = [(row, self._guides.get(row.sequence) if row else None) for row in rows]
        return pack_masks(size, mask_words(self._vocab_size), guided)

    def _packed_edits(self, rows: Rows, key: ProgramKey) -> Ints:
        edits = [(row, self._edits_of(row.sequence) if row else None) for row in rows]
        return pack_edits(key.rows, key.chunk, edits)

    def _edits_of(self, sequence: Sequence) -> TokenEdits | None:
        if not needs_edits(sequence.request):
            return None
        edits = self._edits.get(sequence)
        if edits is None:
            edits = self._edits[sequence] = TokenEdits.of(sequence)
        edits.keep_up(sequence)
        return edits


def read_draws(packed: Ints, count: int) -> list[DrawnToken]:
    """Return what the first ``count`` rows drew, from what the device returned."""
    more = (packed.shape[1] - 2) // 2
    values = packed[:count]
    logprobs = np.ascontiguousarray(values[:, 1]).view(np.float32).tolist()
    ids = values[:, 2 : 2 + more].tolist()
    best = np.ascontiguousarray(values[:, 2 + more :]).view(np.float32).tolist()
    return [
        DrawnToken(token, logprob, tuple(zip(top, scores, strict=True)))
        for token, logprob, top, scores in zip(values[:, 0].tolist(), logprobs, ids, best, strict=True)
    ]
