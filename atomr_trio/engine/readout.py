"""What a dispatched step computed, once it is on the host."""

import math
from collections.abc import Sequence as SequenceOf

import jax
import numpy as np
from attrs import field, frozen

from .drawing import DrawnToken, read_draws
from .packing import Ints, Row, Rows
from .pooling import Floats

__all__ = ["Drawn", "Started", "collect"]


@frozen
class Drawn:
    """What a step computed.

    Args:
        draws: what was drawn for each sequence of ``plan.drawing``, in order, by request number. It ends where the
            model's output was not a number, or no token was allowed.
        broken: requests of which that is so.
        scores: of the sequences whose chunks were scored, tokens ``start + 1 …``, by request number.
        pooled: the part of an embedding that a chunk makes, by request number.
    """

    draws: dict[int, list[DrawnToken]] = field(factory=dict[int, list[DrawnToken]])
    broken: set[int] = field(factory=set[int])
    scores: dict[int, list[DrawnToken]] = field(factory=dict[int, list[DrawnToken]])
    pooled: dict[int, Floats] = field(factory=dict[int, Floats])

    @property
    def tokens(self) -> dict[int, list[int]]:
        """The ids of what was drawn."""
        return {number: [one.token for one in draws] for number, draws in self.draws.items()}

    def add(self, number: int, drawn: DrawnToken) -> None:
        """Note what was drawn next for a request."""
        draws = self.draws.setdefault(number, [])
        if math.isnan(drawn.logprob):
            self.broken.add(number)
        elif number not in self.broken:
            draws.append(drawn)


@frozen
class Started:
    """A program that was dispatched.

    Args:
        rows: whose tokens are drawn; ``None``: nobody's.
        drawn: for `read_draws`, or several of that, ``[K, …]``, one for each token of a row; ``None`` if nothing is
            drawn.
        waited: an array of the forward program, there when it is done.
        scored: ``waited`` has the scores of this row's tokens.
        pooled: ``waited`` has a row for each of these, which is a part of an embedding.
    """

    rows: Rows
    drawn: jax.Array | None
    waited: jax.Array
    scored: Row | None = None
    pooled: SequenceOf[Row] = ()


def collect(started: list[Started]) -> Drawn:
    """Wait for the programs of a step, and read what they computed.

    Raises:
        Exception: what the device raises; see ``classify_device_error``.
    """
    result = Drawn()
    for one in started:
        _collect(one, result)
    return result


def _collect(started: Started, result: Drawn) -> None:
    # Also where there is nothing to read: a chunk that draws no token returns before it is computed, and a long prompt
    # would be dispatched in one go, out of reach of aborts, of other sequences, and of the deadline of a step.
    started.waited.block_until_ready()
    if started.drawn is not None:
        packed: Ints = np.asarray(started.drawn)
        for step in packed.reshape(-1, *packed.shape[-2:]):
            for row, drawn in zip(started.rows, read_draws(step, len(started.rows)), strict=True):
                if row is not None:
                    result.add(row.sequence.id, drawn)
    if started.scored is not None:
        scored = started.scored
        result.scores[scored.sequence.id] = read_draws(np.asarray(started.waited), scored.count)
    if started.pooled:
        parts: Floats = np.asarray(started.waited)
        for row, part in zip(started.pooled, parts, strict=False):
            result.pooled[row.sequence.id] = part
