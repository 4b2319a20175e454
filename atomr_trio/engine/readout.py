"""What a dispatched step computed, once it is on the host."""

import math

import jax
import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from .drawing import DrawnToken, read_draws
from .packing import Ints, Row, Rows

__all__ = ["Drawn", "Started", "collect"]


@frozen
class Drawn:
    """What a step computed.

    Args:
        draws: what was drawn for each sequence of ``plan.drawing``, in order, by request number. It ends where the
            model's output was not a number, or no token was allowed.
        broken: requests of which that is so.
        scores: log probability of tokens ``start + 1 …`` of the sequences whose chunks were scored, by request number.
    """

    draws: dict[int, list[DrawnToken]] = field(factory=dict[int, list[DrawnToken]])
    broken: set[int] = field(factory=set[int])
    scores: dict[int, list[float]] = field(factory=dict[int, list[float]])

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
    """

    rows: Rows
    drawn: jax.Array | None
    waited: jax.Array
    scored: Row | None = None


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
        scores: npt.NDArray[np.float32] = np.asarray(started.waited)
        result.scores[started.scored.sequence.id] = scores[: started.scored.count].tolist()
