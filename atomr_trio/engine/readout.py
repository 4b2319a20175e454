"""What a dispatched step computed, once it is on the host."""

import math

import jax
import numpy as np
import numpy.typing as npt
from attrs import field, frozen

from .drawing import read_draws
from .packing import Ints, Row, Rows

__all__ = ["Drawn", "Started", "collect"]


@frozen
class Drawn:
    """What a step computed.

    Args:
        tokens: the token drawn for each sequence of ``plan.drawing``, by request number.
        logprobs: their log probabilities; NaN where the model's output was not a number, or no token was allowed.
        top: the most likely tokens in their place, best first, where some row of the step asked for them.
        scores: log probability of tokens ``start + 1 …`` of the sequences whose chunks were scored, by request number.
    """

    tokens: dict[int, int] = field(factory=dict[int, int])
    logprobs: dict[int, float] = field(factory=dict[int, float])
    top: dict[int, tuple[tuple[int, float], ...]] = field(factory=dict[int, tuple[tuple[int, float], ...]])
    scores: dict[int, list[float]] = field(factory=dict[int, list[float]])

    @property
    def broken(self) -> list[int]:
        """Requests that got no token: the model's output was not a number, or none was allowed."""
        return [number for number, logprob in self.logprobs.items() if math.isnan(logprob)]


@frozen
class Started:
    """A program that was dispatched.

    Args:
        rows: whose tokens are drawn; ``None``: nobody's.
        drawn: for `read_draws`; ``None`` if nothing is drawn.
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
        for row, drawn in zip(started.rows, read_draws(packed, len(started.rows)), strict=True):
            if row is not None:
                number = row.sequence.id
                result.tokens[number], result.logprobs[number], result.top[number] = (
                    drawn.token,
                    drawn.logprob,
                    drawn.top,
                )
    if started.scored is not None:
        scores: npt.NDArray[np.float32] = np.asarray(started.waited)
        result.scores[started.scored.sequence.id] = scores[: started.scored.count].tolist()
