"""Runs a planned step on the device: packs, dispatches, reads back."""

import math
from collections.abc import Callable

import jax
import numpy as np
import numpy.typing as npt
from attrs import define, field, frozen

from .blocks import pages_for
from .buckets import Buckets, ProgramKey
from .compile_cache import CompileCache
from .drawing import Drawing, read_draws
from .model import KV
from .packing import Ints, Row, pack_steps
from .scheduler import Chunk, StepPlan
from .sequence import Sequence
from .weights import Params

__all__ = ["Drawn", "StepExecutor"]


@frozen
class Drawn:
    """What a step computed.

    Args:
        tokens: the token drawn for each sequence of ``plan.drawing``, by request number.
        logprobs: their log probabilities; NaN where the model's output was not a number, or no token was allowed.
        top: the most likely tokens in their place, best first, where some row of the step asked for them.
        scores: log probability of tokens ``start + 1 …`` of the chunk's sequence, if it was scored.
    """

    tokens: dict[int, int] = field(factory=dict[int, int])
    logprobs: dict[int, float] = field(factory=dict[int, float])
    top: dict[int, tuple[tuple[int, float], ...]] = field(factory=dict[int, tuple[tuple[int, float], ...]])
    scores: list[float] = field(factory=list[float])

    @property
    def broken(self) -> list[int]:
        """Requests that got no token: the model's output was not a number, or none was allowed."""
        return [number for number, logprob in self.logprobs.items() if math.isnan(logprob)]


@frozen
class _Started:
    """A program that was dispatched: whose tokens are drawn, and the arrays to wait for."""

    rows: list[Row]
    drawn: jax.Array | None
    scores: jax.Array


@define
class StepExecutor:
    """Owns the weights and the cache.

    Args:
        params: the weights.
        programs: compiled for the shapes of ``params`` and of what ``new_kv`` makes.
        buckets: which shapes there are.
        page_size: tokens a page.
        new_kv: allocates the cache.
        drawing: draws from the logits.
    """

    _params: Params
    _programs: CompileCache
    _buckets: Buckets
    _page_size: int
    _new_kv: Callable[[], KV]
    drawing: Drawing
    _kv: KV = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._kv = self._new_kv()

    @property
    def lost(self) -> bool:
        """The cache went into a step that failed after it was donated."""
        return any(leaf.is_deleted() for leaf in jax.tree.leaves(self._kv))

    def warm_up(self, on_progress: Callable[[int, int], None]) -> None:
        """Compile all shapes now; ``on_progress`` is called with (programs done, programs in all)."""
        self._programs.warm_up(self._buckets.everything(), on_progress)

    def rebuild(self) -> None:
        """Allocate the cache anew. What the pages held is lost."""
        self._kv = []
        self._kv = self._new_kv()

    def run(self, plan: StepPlan, *, score: bool) -> Drawn:
        """Compute a step; returns when its results are on the host.

        Args:
            plan: what to compute.
            score: return the log probabilities of the chunk's own tokens.

        Raises:
            Exception: whatever the device or the compiler raises; see ``classify_device_error``.
        """
        # Everything is dispatched before anything is waited for.
        started = [self._start_decodes(plan.decodes)] if plan.decodes else []
        if plan.chunk is not None:
            started.append(self._start_chunk(plan.chunk, score=score))
        result = Drawn()
        for one in started:
            _collect(one, result)
        return result

    def at_hand(self, plan: StepPlan, *, score: bool) -> StepPlan:
        """Return the part of a plan that can run without waiting for a program; what it lacks is being compiled."""
        rows = [Row(sequence, len(sequence.tokens) - 1, 1) for sequence in plan.decodes]
        decodes = not rows or self._is_at_hand(self._decode_key(rows), rows, draws=True)
        chunk = plan.chunk is None or self._is_chunk_at_hand(plan.chunk, score=score)
        return StepPlan(plan.decodes if decodes else (), plan.chunk if chunk else None)

    def _is_chunk_at_hand(self, chunk: Chunk, *, score: bool) -> bool:
        rows = [Row(chunk.sequence, chunk.start, chunk.length)]
        return self._is_at_hand(self._chunk_key(chunk, score=score), rows, draws=chunk.completes)

    def _is_at_hand(self, wanted: ProgramKey, rows: list[Row], *, draws: bool) -> bool:
        if not draws:
            return self._programs.is_at_hand(wanted)
        needs = self.drawing.needs(rows)
        return self._programs.is_at_hand(wanted, lambda key: self.drawing.keys(needs, key.rows))

    def _decode_key(self, rows: list[Row]) -> ProgramKey:
        return self._buckets.decode(len(rows), self._pages(rows))

    def _chunk_key(self, chunk: Chunk, *, score: bool) -> ProgramKey:
        return self._buckets.chunk(
            chunk.length, self._pages([Row(chunk.sequence, chunk.start, chunk.length)]), scored=score
        )

    def _start_decodes(self, decodes: tuple[Sequence, ...]) -> _Started:
        rows = [Row(sequence, len(sequence.tokens) - 1, 1) for sequence in decodes]
        return self._start(self._decode_key(rows), rows, draws=True)

    def _start_chunk(self, chunk: Chunk, *, score: bool) -> _Started:
        rows = [Row(chunk.sequence, chunk.start, chunk.length)]
        return self._start(self._chunk_key(chunk, score=score), rows, draws=chunk.completes)

    def _pages(self, rows: list[Row]) -> int:
        return pages_for(max(row.end for row in rows), self._page_size)

    def _start(self, wanted: ProgramKey, rows: list[Row], *, draws: bool) -> _Started:
        # A larger program makes more rows of logits, and the draw has to fit them.
        needs = self.drawing.needs(rows)
        key, program = self._programs.choose(wanted, self.drawing.keys(needs, wanted.rows))
        self._programs.prepare([*self._buckets.wider(wanted), *self.drawing.soon(needs, key.rows)])
        if draws:
            for drawing in self.drawing.keys(needs, key.rows):
                self._programs.require(drawing)
        self._kv, logits, scores = program(self._params, self._kv, pack_steps(key, rows))
        return _Started(rows, self.drawing.start(self._programs.get, rows, needs, logits) if draws else None, scores)


def _collect(started: _Started, result: Drawn) -> None:
    # Also where there is nothing to read: a chunk that draws no token returns before it is computed, and a long prompt
    # would be dispatched in one go, out of reach of aborts, of other sequences, and of the deadline of a step.
    started.scores.block_until_ready()
    if started.drawn is not None:
        packed: Ints = np.asarray(started.drawn)
        for row, drawn in zip(started.rows, read_draws(packed, len(started.rows)), strict=True):
            number = row.sequence.id
            result.tokens[number], result.logprobs[number], result.top[number] = drawn.token, drawn.logprob, drawn.top
    if started.scores.size:
        scores: npt.NDArray[np.float32] = np.asarray(started.scores)
        result.scores.extend(scores[: started.rows[-1].count].tolist())
