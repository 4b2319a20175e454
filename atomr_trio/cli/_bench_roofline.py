"""How close decoding came to what the memory allows: pure arithmetic.

A decode step reads every weight once, and the keys and values of every sequence. So a step of a batch takes at least
``(weights + sum of contexts * kv_bytes_per_token) / bandwidth`` seconds; the fraction of the roofline is that time
over the time it took.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from ._bench_stats import Sample

if TYPE_CHECKING:
    from atomr_trio.engine.config import ModelConfig

__all__ = ["ModelBytes", "busy_seconds", "fraction_of_roofline", "model_bytes"]

_WEIGHT_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
_SCALE_BYTES = 4


@frozen
class ModelBytes:
    """What decoding must read: ``weights`` bytes a step, ``per_token`` bytes for each token of context."""

    weights: int
    per_token: int


def model_bytes(config: "ModelConfig", dtype: str, backend: str) -> ModelBytes | None:
    """Return what a step reads, or ``None`` for a number type whose size is not known here.

    Args:
        config: the model. Only a tied embedding is read as a whole, as the output matrix.
        dtype: how its weights are held; ``int8`` has a float32 scale for each output channel.
        backend: ``cpu`` keeps the cache of an int8 model in float32, others in bfloat16.
    """
    if dtype not in _WEIGHT_BYTES:
        return None
    matrices = [
        (config.qkv_size, config.hidden_size),
        (config.hidden_size, config.num_heads * config.head_dim),
        (2 * config.intermediate_size, config.hidden_size),
        (config.hidden_size, config.intermediate_size),
    ]
    each_layer = sum(_matrix_bytes(*shape, dtype) for shape in matrices)
    output = _matrix_bytes(config.vocab_size, config.hidden_size, dtype)
    wide_cache = dtype == "float32" or (dtype == "int8" and backend == "cpu")
    per_layer = 2 * config.num_kv_heads * config.head_dim * (4 if wide_cache else 2)
    return ModelBytes(config.num_layers * each_layer + output, config.num_layers * per_layer)


def _matrix_bytes(rows: int, columns: int, dtype: str) -> int:
    scales = rows * _SCALE_BYTES if dtype == "int8" else 0
    return rows * columns * _WEIGHT_BYTES[dtype] + scales


def fraction_of_roofline(samples: Sequence[Sample], read: ModelBytes, bandwidth: float) -> float | None:
    """Return ideal over measured time of decoding; ``None`` if nothing was decoded.

    Measured is the time in which at least one answer was between its first and its last token; prompts that were
    computed meanwhile count against it. How many steps that were follows from the mean number of such answers.

    Args:
        samples: the answered requests.
        read: what a step reads.
        bandwidth: of the memory, in bytes a second.
    """
    decoded = [(s.chunks[0], s.ended, s) for s in samples if s.chunks and s.output_tokens > s.first_tokens]
    busy = busy_seconds((first, ended) for first, ended, _ in decoded)
    if busy <= 0:
        return None
    batch = sum(ended - first for first, ended, _ in decoded) / busy
    steps = sum(s.output_tokens - s.first_tokens for *_, s in decoded) / batch
    contexts = sum(_context_tokens(s) for *_, s in decoded)
    return (steps * read.weights + contexts * read.per_token) / (bandwidth * busy)


def _context_tokens(sample: Sample) -> int:
    """Tokens of context that the steps after the first chunk read in all: one more in each."""
    first, last = sample.prompt_tokens + sample.first_tokens, sample.prompt_tokens + sample.output_tokens - 1
    return (first + last) * (last - first + 1) // 2


def busy_seconds(spans: Iterable[tuple[float, float]]) -> float:
    """Return how much time is covered by at least one of the spans."""
    total, covered = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, covered))
        covered = max(covered, end)
    return total
