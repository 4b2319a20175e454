"""What a benchmark says about its requests: pure arithmetic over their times.

The definitions are those of ``vllm bench serve``, so that figures can be compared.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal

from attrs import asdict, frozen

__all__ = ["Goals", "LoadPoint", "Sample", "Spread", "Summary", "percentile", "summarize"]


@frozen(kw_only=True)
class Sample:
    """One request that was answered. Times are seconds on one clock.

    Args:
        sent: when it was sent.
        chunks: when each chunk with news came, in order.
        ended: when its last chunk came.
        prompt_tokens: as counted by the server.
        output_tokens: as counted by the server, whatever the number of chunks.
        cached_tokens: prompt tokens that the server found in its prefix cache.
        first_tokens: how many came with the first chunk, where that is known.
        exact: the counts are the server's; else a chunk counts as one token.
    """

    sent: float
    chunks: tuple[float, ...]
    ended: float
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    first_tokens: int = 1
    exact: bool = True

    @property
    def ttft(self) -> float | None:
        """Time to first token: from sending to the first chunk; ``None`` if nothing came."""
        return self.chunks[0] - self.sent if self.chunks else None

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first; ``None`` for answers of fewer than two tokens."""
        if not self.chunks or self.output_tokens < 2:
            return None
        return (self.ended - self.chunks[0]) / (self.output_tokens - 1)

    @property
    def gaps(self) -> tuple[float, ...]:
        """Inter-token latencies: the times between chunks, each of which may carry several tokens."""
        return tuple(later - earlier for earlier, later in pairwise(self.chunks))

    @property
    def latency(self) -> float:
        """From sending to the last chunk."""
        return self.ended - self.sent


@frozen
class Goals:
    """What a request must meet to count as good: at most so many seconds; ``None`` asks for nothing."""

    ttft: float | None = None
    tpot: float | None = None

    def __bool__(self) -> bool:
        return self.ttft is not None or self.tpot is not None

    def met_by(self, sample: Sample) -> bool:
        """Say whether a request meets them all. A value that it does not have, such as the TPOT of one token, does."""
        pairs = ((sample.ttft, self.ttft), (sample.tpot, self.tpot))
        return all(limit is None or value is None or value <= limit for value, limit in pairs)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return a percentile, linear between the two nearest values, as numpy does.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values have no percentile")
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    # Not `below + share * (above - below)`: rounding could leave the interval.
    share = place - below
    return ordered[below] if ordered[below] == ordered[above] else _between(ordered[below], ordered[above], share)


def _between(low: float, high: float, share: float) -> float:
    return min(max(low * (1 - share) + high * share, low), high)


@frozen
class Spread:
    """How values are spread, in their own unit."""

    mean: float
    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, values: Iterable[float | None], /) -> "Spread | None":
        """Return the spread of the values that are there; ``None`` if none is."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        return cls(sum(known) / len(known), *(percentile(known, percent) for percent in (50, 90, 99)))


@frozen
class LoadPoint:
    """One load: ``value`` streams that are always busy, or ``value`` requests a second with Poisson arrivals."""

    kind: Literal["concurrency", "rate"]
    value: float


@frozen(kw_only=True)
class Summary:
    """One row of the table. Times are milliseconds; rates are per second of wall time, first request to last token.

    Args:
        load: what was asked for.
        requests: answered.
        failed: not answered.
        duration_s: wall time.
        prompt_tokens: of all answered requests.
        cached_tokens: how many of these were found in the prefix cache.
        output_tokens: of all answered requests.
        tokens_per_chunk: 1 where each token comes alone. Where several come at once, read TPOT and not ITL.
        exact: all counts are the server's own.
        goodput_per_s: requests that meet the goals; ``None`` without goals.
        roofline: share of the memory-bandwidth roofline; ``None`` where it cannot be known.
    """

    load: LoadPoint
    requests: int
    failed: int
    duration_s: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    requests_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    ttft_ms: Spread | None
    tpot_ms: Spread | None
    itl_ms: Spread | None
    latency_ms: Spread | None
    tokens_per_chunk: float
    exact: bool
    goodput_per_s: float | None
    roofline: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, the load as ``{"concurrency": 8}`` or ``{"rate": 2.5}``."""
        return {**asdict(self), "load": {self.load.kind: self.load.value}}


def summarize(
    load: LoadPoint, samples: Sequence[Sample], *, failed: int, duration: float, goals: Goals, roofline: float | None
) -> Summary:
    """Return the row of one load.

    Args:
        load: what was asked for.
        samples: the answered requests.
        failed: how many were not answered.
        duration: seconds from the first request to the last token.
        goals: what a good request meets.
        roofline: see `Summary`.
    """
    prompts, outputs = sum(s.prompt_tokens for s in samples), sum(s.output_tokens for s in samples)
    chunks = sum(len(s.chunks) for s in samples)

    def per_s(count: float) -> float:
        return count / duration if duration > 0 else 0.0

    return Summary(
        load=load,
        requests=len(samples),
        failed=failed,
        duration_s=duration,
        prompt_tokens=prompts,
        cached_tokens=sum(s.cached_tokens for s in samples),
        output_tokens=outputs,
        requests_per_s=per_s(len(samples)),
        output_tokens_per_s=per_s(outputs),
        total_tokens_per_s=per_s(prompts + outputs),
        ttft_ms=_spread_ms(samples, lambda s: [s.ttft]),
        tpot_ms=_spread_ms(samples, lambda s: [s.tpot]),
        itl_ms=_spread_ms(samples, lambda s: s.gaps),
        latency_ms=_spread_ms(samples, lambda s: [s.latency]),
        tokens_per_chunk=outputs / chunks if chunks else 0.0,
        exact=all(s.exact for s in samples),
        goodput_per_s=per_s(sum(map(goals.met_by, samples))) if goals else None,
        roofline=roofline,
    )


def _spread_ms(samples: Sequence[Sample], values: Callable[[Sample], Sequence[float | None]]) -> Spread | None:
    return Spread.of(None if value is None else 1000 * value for sample in samples for value in values(sample))
