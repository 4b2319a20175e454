"""Runs a planned step on the device: packs, dispatches, reads back."""

import math
from collections.abc import Callable

import jax
import numpy as np
import numpy.typing as npt
from attrs import define, field, frozen

from .blocks import pages_for
from .buckets import Buckets, ProgramKey
from .model import KV
from .packing import pack_rows
from .programs import Programs
from .scheduler import Chunk, StepPlan
from .sequence import Sequence
from .weights import Params

__all__ = ["Drawn", "StepExecutor"]


@frozen
class Drawn:
    """What a step computed.

    Args:
        tokens: the token drawn for each sequence of ``plan.drawing``, by request number.
        logprobs: their log probabilities; NaN where the model's output was not a number.
        scores: log probability of tokens ``start + 1 …`` of the chunk's sequence, if it was scored.
    """

    tokens: dict[int, int]
    logprobs: dict[int, float]
    scores: list[float]

    @property
    def broken(self) -> list[int]:
        """Requests whose model output was not a number."""
        return [number for number, logprob in self.logprobs.items() if math.isnan(logprob)]


@define
class StepExecutor:
    """Owns the weights and the cache.

    Args:
        params: the weights.
        programs: compiled for the shapes of ``params`` and of what ``new_kv`` makes.
        buckets: which shapes there are.
        page_size: tokens a page.
        new_kv: allocates the cache.
    """

    _params: Params
    _programs: Programs
    _buckets: Buckets
    _page_size: int
    _new_kv: Callable[[], KV]
    _kv: KV = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._kv = self._new_kv()

    @property
    def lost(self) -> bool:
        """The cache went into a step that failed after it was donated."""
        return any(leaf.is_deleted() for leaf in jax.tree.leaves(self._kv))

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
        # Both programs are dispatched before either is waited for.
        chunk = self._start_chunk(plan.chunk, score=score) if plan.chunk else None
        decodes = self._start_decodes(plan.decodes) if plan.decodes else None
        results: list[Ints] = []
        if decodes is not None:
            results.append(np.asarray(decodes)[: len(plan.decodes), :2])
        scores: list[float] = []
        if plan.chunk is not None:
            row = np.asarray(chunk)
            scores = _floats(row[0, 2:])[: plan.chunk.length]
            results.append(row[: plan.chunk.completes, :2])
        return _drawn(plan.drawing, np.concatenate(results), scores)

    def _start_chunk(self, chunk: Chunk, *, score: bool) -> jax.Array:
        pages = pages_for(chunk.start + chunk.length, self._page_size)
        wanted = self._buckets.chunk(chunk.length, pages, scored=score)
        return self._start(wanted, [(chunk.sequence, chunk.start, chunk.length)])

    def _start_decodes(self, decodes: tuple[Sequence, ...]) -> jax.Array:
        pages = max(len(sequence.pages) for sequence in decodes)
        work = [(sequence, len(sequence.tokens) - 1, 1) for sequence in decodes]
        return self._start(self._buckets.decode(len(decodes), pages), work)

    def _start(self, wanted: ProgramKey, work: list[tuple[Sequence, int, int]]) -> jax.Array:
        key, program = self._programs.choose(wanted)
        self._kv, result = program(self._params, self._kv, pack_rows(key, work))
        return result


Ints = npt.NDArray[np.int32]


def _floats(bits: Ints) -> list[float]:
    floats: list[float] = np.ascontiguousarray(bits).view(np.float32).tolist()
    return floats


def _drawn(drawing: tuple[Sequence, ...], results: Ints, scores: list[float]) -> Drawn:
    ids = [sequence.id for sequence in drawing]
    tokens: list[int] = results[:, 0].tolist()
    return Drawn(dict(zip(ids, tokens, strict=True)), dict(zip(ids, _floats(results[:, 1]), strict=True)), scores)
