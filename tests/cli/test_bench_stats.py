"""The arithmetic of the benchmark: its figures are those of the definitions, for all requests there can be."""

from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.cli._bench_roofline import ModelBytes, busy_seconds, fraction_of_roofline
from atomr_trio.cli._bench_stats import Goals, LoadPoint, Sample, Spread, percentile, summarize

LOAD = LoadPoint("concurrency", 2)
GAPS = st.lists(st.floats(0, 10), max_size=12)
VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1)


def close(value):
    return pytest.approx(value, rel=1e-9, abs=1e-9)


@st.composite
def samples(draw, min_tokens=0):
    """Requests with chunks of one or several tokens, all at any time."""
    sent = draw(st.floats(0, 100))
    chunks = tuple(accumulate(draw(GAPS.filter(lambda gaps: len(gaps) >= bool(min_tokens))), initial=sent))[1:]
    tokens = draw(st.integers(len(chunks), 3 * len(chunks))) if chunks else 0
    end = chunks[-1] if chunks else sent
    return Sample(
        sent=sent,
        chunks=chunks,
        ended=end + draw(st.floats(0, 1)),
        prompt_tokens=draw(st.integers(1, 1000)),
        output_tokens=max(tokens, min_tokens),
    )


def summary(found, **changes):
    values = {"failed": 0, "duration": 10.0, "goals": Goals(), "roofline": None, **changes}
    return summarize(LOAD, found, **values)


@given(VALUES, st.floats(0, 100))
def test_a_percentile_is_numpys(values, percent):
    assert percentile(values, percent) == pytest.approx(np.percentile(values, percent), rel=1e-9, abs=1e-6)


@given(VALUES, st.floats(0, 100), st.floats(0, 100))
def test_percentiles_rise_within_the_values(values, one, other):
    low, high = percentile(values, min(one, other)), percentile(values, max(one, other))
    assert min(values) <= low <= high <= max(values)


def test_nothing_has_no_percentile():
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)
    assert Spread.of([None, None]) is None


@given(samples())
def test_the_parts_of_a_request_add_up(sample):
    assert sample.ttft is None or sample.ttft >= 0
    if sample.tpot is not None:
        assert sample.ttft + sample.tpot * (sample.output_tokens - 1) == close(sample.latency)
    if sample.chunks:
        assert sum(sample.gaps) == close(sample.chunks[-1] - sample.chunks[0])


@given(samples(), st.integers(2, 5))
def test_tpot_does_not_depend_on_how_tokens_come_in_chunks(sample, every):
    """ITL does: which is why both are shown."""
    first_and_some = sample.chunks[:1] + sample.chunks[every:]
    merged = Sample(
        sent=sample.sent,
        chunks=first_and_some,
        ended=sample.ended,
        prompt_tokens=sample.prompt_tokens,
        output_tokens=sample.output_tokens,
    )
    assert (merged.ttft, merged.tpot) == (sample.ttft, sample.tpot)


@given(st.lists(samples(), max_size=6), st.floats(0.1, 100), st.integers(0, 3))
def test_rates_are_counts_over_wall_time(found, duration, failed):
    row = summary(found, duration=duration, failed=failed)
    assert row.output_tokens_per_s * duration == close(sum(s.output_tokens for s in found))
    assert row.total_tokens_per_s * duration == close(sum(s.output_tokens + s.prompt_tokens for s in found))
    assert (row.requests, row.failed) == (len(found), failed)
    assert row.goodput_per_s is None
    assert summary(found, duration=0.0).output_tokens_per_s == 0


@given(st.lists(samples(), max_size=6), st.floats(0, 5), st.floats(0, 5))
def test_goodput_counts_those_that_meet_every_goal(found, ttft, tpot):
    both = summary(found, goals=Goals(ttft, tpot)).goodput_per_s
    good = [s for s in found if (s.ttft is None or s.ttft <= ttft) and (s.tpot is None or s.tpot <= tpot)]
    assert both * 10 == close(len(good))
    assert both <= min(summary(found, goals=goals).goodput_per_s for goals in (Goals(ttft), Goals(None, tpot)))


def test_the_row_as_a_program_reads_it():
    sample = Sample(sent=1.0, chunks=(1.5, 1.6, 1.8), ended=1.8, prompt_tokens=10, output_tokens=4, cached_tokens=8)
    row = summary([sample], duration=2.0).to_dict()
    assert row["load"] == {"concurrency": 2}
    assert (row["output_tokens_per_s"], row["total_tokens_per_s"], row["cached_tokens"]) == (2.0, 7.0, 8)
    assert row["ttft_ms"]["p50"] == close(500)
    assert row["tpot_ms"]["p50"] == close(100)
    assert row["itl_ms"]["p50"] == close(150)
    assert row["tokens_per_chunk"] == close(4 / 3)


# --- the roofline


def steady(streams, tokens, step, prompt):
    """So many streams that begin together, and take one step of the batch for each token."""
    chunks = tuple(1.0 + step * number for number in range(tokens))
    one = Sample(sent=0.0, chunks=chunks, ended=chunks[-1], prompt_tokens=prompt, output_tokens=tokens)
    return [one] * streams


@given(st.integers(1, 64), st.integers(2, 50), st.floats(1e-3, 1.0), st.integers(1, 500), st.floats(0.1, 4))
def test_a_batch_that_reads_at_the_speed_of_the_memory_is_at_its_roofline(streams, tokens, step, prompt, share):
    read = ModelBytes(weights=1000, per_token=7)
    # The mean over the steps: contexts grow by one token a step.
    bytes_a_step = 1000 + 7 * streams * (prompt + tokens / 2)
    bandwidth = bytes_a_step / (step * share)
    assert fraction_of_roofline(steady(streams, tokens, step, prompt), read, bandwidth) == pytest.approx(
        share, rel=1e-6
    )


@given(st.lists(samples(min_tokens=1), min_size=1, max_size=5), st.floats(1.1, 5))
def test_it_falls_as_memory_gets_faster_and_as_decoding_gets_slower(found, factor):
    read = ModelBytes(weights=1000, per_token=1)
    share = fraction_of_roofline(found, read, 1e6)
    if share is None or share == 0:
        return
    assert fraction_of_roofline(found, read, 1e6 * factor) == pytest.approx(share / factor)
    slower = [
        Sample(
            sent=s.sent * factor,
            chunks=tuple(time * factor for time in s.chunks),
            ended=s.ended * factor,
            prompt_tokens=s.prompt_tokens,
            output_tokens=s.output_tokens,
        )
        for s in found
    ]
    assert fraction_of_roofline(slower, read, 1e6) == pytest.approx(share / factor, rel=1e-6)


def test_what_decoded_nothing_has_none():
    alone = Sample(sent=0.0, chunks=(1.0,), ended=1.0, prompt_tokens=5, output_tokens=1)
    assert fraction_of_roofline([alone], ModelBytes(1, 1), 1.0) is None
    assert fraction_of_roofline([], ModelBytes(1, 1), 1.0) is None


def test_tokens_of_the_first_chunk_took_no_decoding_that_was_seen():
    late = Sample(sent=0.0, chunks=(1.0, 3.0), ended=3.0, prompt_tokens=10, output_tokens=6, first_tokens=4)
    # Two steps, over contexts of 14 and 15 tokens, in 2 seconds.
    assert fraction_of_roofline([late], ModelBytes(100, 10), 100.0) == close((2 * 100 + 29 * 10) / 200)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), max_size=8))
def test_busy_time_counts_each_moment_once(spans):
    covered = {moment for start, length in spans for moment in range(start, start + length)}
    assert busy_seconds((start, start + length) for start, length in spans) == len(covered)
