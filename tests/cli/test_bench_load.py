"""How load is put on a target: never more streams than asked for, no prompt twice, no request lost."""

import random
from itertools import pairwise

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.cli._bench_load import Recorder, apply_load
from atomr_trio.cli._bench_prompts import WORDS, PromptMaker, token_range
from atomr_trio.cli._bench_stats import LoadPoint
from atomr_trio.core import Internal

SECONDS = st.lists(st.sampled_from([0.0, 0.1, 0.5, 2.0]), min_size=1, max_size=20)


class Slow:
    """Answers the next prompt after the next of these times; a negative one fails."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.asked = []
        self.open = self.most_open = 0

    async def ask(self, prompt):
        taken = self.seconds[len(self.asked)]
        self.asked.append(prompt)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        recorder = Recorder()
        try:
            await trio.sleep(abs(taken))
            if taken < 0:
                raise Internal("it failed")
            recorder.chunk()
            return recorder.sample(5, 1)
        finally:
            self.open -= 1


def run(target, load, prompts=None, requests=None):
    async def main():
        asked = iter(prompts or range(1000))
        return await apply_load(target, asked, load, requests or len(target.seconds), seed=0)

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@given(SECONDS, st.integers(1, 8), st.random_module())
def test_fixed_concurrency_asks_all_once_and_keeps_all_streams_busy(seconds, streams, _):
    target = Slow(seconds)
    outcome = run(target, LoadPoint("concurrency", streams))
    assert target.asked == list(range(len(seconds)))
    assert (len(outcome.samples), outcome.failures) == (len(seconds), [])
    assert target.most_open == min(streams, len(seconds))
    # A stream that is free takes the next: no schedule of this kind is longer than this.
    assert outcome.seconds <= sum(seconds) / streams + max(seconds) + 1e-9
    assert outcome.seconds >= max(max(seconds), sum(seconds) / streams) - 1e-9


@given(st.lists(st.sampled_from([0.1, -0.1]), min_size=1, max_size=12), st.sampled_from(["concurrency", "rate"]))
@settings(max_examples=30)
def test_a_failed_request_is_counted_and_the_others_go_on(seconds, kind):
    outcome = run(Slow(seconds), LoadPoint(kind, 3))
    assert len(outcome.samples) == sum(taken > 0 for taken in seconds)
    assert len(outcome.failures) == sum(taken < 0 for taken in seconds)


@given(st.integers(0, 2**32))
@settings(max_examples=10)
def test_arrivals_are_poisson_and_wait_for_nobody(seed):
    many, rate = 400, 4.0
    outcome = run(Slow([1000.0] * many), LoadPoint("rate", rate))
    sent = [sample.sent for sample in outcome.samples]
    gaps = [later - earlier for earlier, later in pairwise(sent)]
    mean = sum(gaps) / len(gaps)
    assert abs(mean * rate - 1) < 0.25
    # An exponential distribution's deviation is its mean; a steady beat has none.
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert abs(deviation / mean - 1) < 0.35


def test_arrivals_are_those_of_the_seed():
    first, again = (run(Slow([1.0] * 5), LoadPoint("rate", 2.0)) for _ in range(2))
    starts = [[sample.sent - outcome.samples[0].sent for sample in outcome.samples] for outcome in (first, again)]
    assert starts[0] == starts[1]


def test_wall_time_ends_with_the_last_token():
    outcome = run(Slow([0.5, 2.0, 0.5]), LoadPoint("concurrency", 2))
    assert abs(outcome.seconds - 2.0) < 1e-9


# --- prompts


@given(st.integers(1, 50), st.integers(0, 60), st.integers(0, 2**32), st.booleans())
def test_prompts_are_as_long_as_asked_and_share_what_was_asked(tokens, shared, seed, as_text):
    maker = PromptMaker(tokens=tokens, shared=shared, seed=seed, ids=None if as_text else token_range(None))
    one, other = ([*(p.split() if as_text else p)] for p in (maker.prompt(0), maker.prompt(1)))
    assert len(one) == len(other) == tokens
    assert one[:shared] == other[:shared]
    assert maker.prompt(0) == PromptMaker(tokens=tokens, shared=shared, seed=seed, ids=maker.ids).prompt(0)


@given(st.integers(0, 2**32), st.integers(0, 2**32), st.integers(0, 100))
def test_no_prefix_cache_knows_them(seed, other_seed, number):
    def first_page(maker_seed, index):
        return PromptMaker(tokens=64, seed=maker_seed, ids=token_range(None)).prompt(index)[:16]

    assert first_page(seed, number) != first_page(seed, number + 1)
    if seed != other_seed:
        assert first_page(seed, number) != first_page(other_seed, number)


@given(st.none() | st.integers(4, 300_000))
def test_ids_are_within_the_vocabulary_and_not_at_its_beginning(size):
    ids = token_range(size)
    assert ids
    assert ids.start > 0
    assert ids.stop <= (size or 30_000)
    assert random.Random(0).choice(ids) in ids


def test_words_are_words():
    assert len(set(WORDS)) == len(WORDS) > 50
    assert all(word.isalpha() for word in WORDS)
