"""The prefix cache in the engine: what was computed before is not computed again, and no answer shows it."""

from itertools import takewhile

import jax.numpy as jnp
import numpy as np
import pytest
from engine_kit import CONFIG, MAX_LEN, Reference, collect, request, tiny_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.core import BadRequest
from atomr_trio.engine.engine import Engine

PAGE = 4
tokens = st.lists(st.integers(3, CONFIG.vocab_size - 1), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def shared(programs_dir):
    engine = Engine(tiny_settings(programs_dir))
    engine.load()
    yield engine
    engine.close()


@pytest.fixture
def engine(shared):
    """An engine that is idle before and after, with all of its pages, and knows nothing before."""
    shared._loaded.scheduler.pool.forget_all()
    yield shared
    assert shared.idle
    assert shared.free_pages == 8 * MAX_LEN // PAGE


@pytest.fixture(scope="module")
def reference():
    return Reference()


def answer(engine, wanted):
    """Tokens, log probabilities, the scores of the prompt, tokens found in the cache, and rows computed."""
    engine.add(wanted)
    outputs, rows = [], 0
    while not engine.idle:
        result = engine.step()
        outputs += result.outputs
        rows += result.tokens
    ids = [token for output in outputs for token in output.token_ids]
    logprobs = [value for output in outputs for value in output.logprobs or ()]
    cached = {output.cached_tokens for output in outputs}
    assert len(cached) == 1, "every output of a sequence says the same"
    return ids, logprobs, outputs[0].prompt_logprobs, cached.pop(), rows


@settings(max_examples=15, deadline=None)
@given(prompt=tokens, other=tokens, keep=st.integers(0, 40), temperature=st.sampled_from([0.0, 0.9]))
def test_a_cached_beginning_gives_the_same_tokens_and_logprobs(shared, prompt, other, keep, temperature):
    pool = shared._loaded.scheduler.pool
    wanted = (prompt[:keep] + other)[:40]
    ask = {"temperature": temperature, "seed": 5, "logprobs": True}
    pool.forget_all()
    cold = answer(shared, request(0, wanted, 8, **ask))
    pool.forget_all()
    answer(shared, request(1, prompt, 8))
    warm = answer(shared, request(2, wanted, 8, **ask))
    again = answer(shared, request(3, wanted, 8, **ask))
    assert cold[0] == warm[0] == again[0]
    assert cold[1] == pytest.approx(warm[1], abs=1e-4)
    assert cold[1] == pytest.approx(again[1], abs=1e-4)
    assert cold[3] == 0
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(prompt, wanted, strict=False)))
    assert warm[3] >= min(same, len(wanted) - 1) // PAGE * PAGE
    assert again[3] == (len(wanted) - 1) // PAGE * PAGE
    assert again[4] == cold[4] - again[3], "what was found was not computed"


def test_the_next_turn_of_a_conversation_goes_on_from_the_last_answer(engine, reference):
    prompt = list(range(5, 15))
    said, *_ = answer(engine, request(0, prompt, 15))
    following = [*prompt, *said, 7, 7]
    got, _, _, cached, _ = answer(engine, request(1, following, 5))
    assert cached == 24
    assert got == reference.greedy(following, 5)


def test_requests_that_come_together_compute_their_common_beginning_once(engine, reference):
    prompt = list(range(5, 35))
    for number in range(6):
        engine.add(request(number, [*prompt, 40 + number], 3))
    rows = 0
    got, cached = {}, []
    while not engine.idle:
        result = engine.step()
        rows += result.tokens
        for output in result.outputs:
            got.setdefault(output.id, []).extend(output.token_ids)
            cached += [output.cached_tokens] if output.finish_reason else []
    assert got == {number: reference.greedy([*prompt, 40 + number], 3) for number in range(6)}
    assert sorted(cached) == [0] + [28] * 5
    assert rows == 31 + 5 * 3 + 6 * 2


def test_a_prompt_that_is_scored_is_computed_as_a_whole(engine):
    prompt = list(range(5, 30))
    cold = answer(engine, request(0, prompt, 4, prompt_logprobs=True))
    warm = answer(engine, request(1, prompt, 4, prompt_logprobs=True))
    assert warm[3] == 0
    assert warm[4] == cold[4] == 25 + 3
    assert warm[2][0] is None
    assert len(warm[2]) == 25
    assert warm[2][1:] == pytest.approx(cold[2][1:], abs=1e-5)
    # What it computed serves others.
    assert answer(engine, request(2, prompt, 4))[3] == 24


def test_tenants_do_not_find_each_others_prompts(engine):
    prompt = list(range(5, 25))
    cached = [answer(engine, request(n, prompt, 2, salt=salt))[3] for n, salt in enumerate(["a", "b", "a", "", ""])]
    assert cached == [0, 0, 16, 0, 16]


def test_who_gave_way_is_told_what_was_found_when_it_came(engine):
    pool = engine._loaded.scheduler.pool
    others = pool.take(pool.free - MAX_LEN // PAGE)
    before = engine.preemptions
    for number in range(4):
        engine.add(request(number, [20 + number] * 9, 40))
    _, last = collect(engine)
    pool.give_back(others)
    assert engine.preemptions > before
    assert [last[number].cached_tokens for number in range(4)] == [0] * 4


def test_pages_of_a_row_that_is_not_a_number_are_not_found_again(engine, monkeypatch, reference):
    prompt = list(range(5, 25))
    real = engine._loaded.programs.choose

    def poisoned(_self, *args):
        key, program = real(*args)

        def run(*inputs):
            kv, view, logits = program(*inputs)
            return kv, view, jnp.asarray(np.full_like(np.asarray(logits), np.nan))

        return key, run

    engine.add(request(0, prompt, 9))
    engine.step()
    engine.step()
    with monkeypatch.context() as patch:
        patch.setattr(type(engine._loaded.programs), "choose", poisoned)
        assert [number for number, _ in [*engine.step().failed, *engine.step().failed]] == [0]
    got, _, _, cached, _ = answer(engine, request(1, prompt, 5))
    assert cached == 0
    assert got == reference.greedy(prompt, 5)


def test_a_cache_that_was_lost_is_not_believed(engine, reference):
    prompt = list(range(5, 25))
    answer(engine, request(0, prompt, 5))
    engine._stepper._rebuild(RuntimeError("lost"))
    got, _, _, cached, _ = answer(engine, request(1, prompt, 5))
    assert cached == 0
    assert got == reference.greedy(prompt, 5)


@pytest.mark.parametrize("priority", [-101, 101])
def test_a_priority_out_of_range_is_refused(engine, priority):
    with pytest.raises(BadRequest) as caught:
        engine.add(request(0, [3], priority=priority))
    assert caught.value.param == "priority"


def test_the_better_priority_is_answered_first(engine):
    for number in range(12):
        engine.add(request(number, [10 + number] * 9, 6, priority=1 if number < 11 else -1))
    first = None
    while not engine.idle:
        for output in engine.step().outputs:
            first = output.id if first is None else first
    assert first == 11
