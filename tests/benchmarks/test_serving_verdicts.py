"""How the serving benchmarks judge what they measured; measuring itself takes a model and minutes."""

from argparse import Namespace
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import FinishReason, SamplingParams, Tokens, TokenUsage


@pytest.fixture(scope="module", autouse=True)
def benchmarks():
    """The scripts import each other by their plain names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
        yield


CHUNKS = st.lists(st.tuples(st.floats(0.01, 5), st.integers(1, 8)), min_size=2, max_size=20)


@given(CHUNKS, st.floats(0, 50), st.floats(0, 50))
def test_stretch_counts_every_token_after_the_first_chunk_once(gaps, one, other):
    from stretch import Watched

    times = accumulate(gap for gap, _ in gaps)
    watched = Watched(0, chunks=[(time, tokens) for time, (_, tokens) in zip(times, gaps, strict=True)])
    cuts = [0.0, *sorted((one, other)), 1e9]
    windows = [watched.between(start, end) for start, end in pairwise(cuts)]
    assert sum(tokens for window in windows for _, tokens in window) == watched.tokens - gaps[0][1]


def test_stretch_divides_a_gap_among_the_tokens_that_end_it():
    from stretch import Window

    window = Window.of([(0.4, 4), (0.1, 1), (0.1, 1)])
    assert (window.tokens, window.median_ms, window.longest_ms) == (6, pytest.approx(100), pytest.approx(400))


def sides(ours, theirs):
    from cpu import Round, Side

    both = [Side("atomr-trio", None), Side("llama-server", None)]
    for side, rates in zip(both, (ours, theirs), strict=True):
        side.rounds[10, 8] = [Round(rate, 1.0, 1.0, 1.0) for rate in rates]
    return both


@pytest.mark.parametrize(("ours", "holds"), [([100.0, 99.0, 300.0], True), ([99.0, 99.0, 300.0], False)])
def test_cpu_compares_medians_with_the_target(ours, holds):
    from cpu import line, rows

    both = sides(ours, [100.0, 100.0, 1.0])
    (row,) = rows(both, Namespace(prompts=[10], streams=[8]))
    assert row["holds"] is holds
    assert line(both, row).split()[-1] == ("yes" if holds else "NO")


def test_cpu_shows_one_side_alone_without_a_verdict():
    from cpu import line, rows

    alone = sides([5.0], [1.0])[:1]
    (row,) = rows(alone, Namespace(prompts=[10], streams=[8]))
    assert "holds" not in row
    assert line(alone, row).split()[:3] == ["10", "8", "5.0"]


def wanted():
    from overload import Wanted

    return Wanted(0, (1, 2, 3), SamplingParams(max_tokens=2), 0, None)


def answer(ids, reason=FinishReason.LENGTH, counted=None, prompt=3):
    usage = TokenUsage(prompt, len(ids) if counted is None else counted)
    return Tokens(token_ids=ids, usage=usage, finish_reason=reason)


@pytest.mark.parametrize(
    "wrong",
    [None, answer([1, 2], FinishReason.STOP), answer([1]), answer([1, 2], counted=3), answer([1, 2], prompt=4)],
)
def test_overload_sees_a_wrong_end(wrong):
    from overload import Tally, wrong_ends

    assert wrong_ends([wanted()], Tally(answers={0: answer([1, 2])})) == []
    assert len(wrong_ends([wanted()], Tally(answers={} if wrong is None else {0: wrong}))) == 1
    assert wrong_ends([wanted()], Tally(left=[0])) == []
