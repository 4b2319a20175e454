"""Sampling through the whole engine, on a tiny model: what is asked for reaches the draw, whoever shares the batch."""

import math
import threading

import draw_kit
import jax
import msgspec
import numpy as np
import pytest
from engine_kit import CONFIG, MAX_LEN, Reference, alone, collect, request, tiny_settings
from hypothesis import given, settings
from hypothesis import strategies as st
from test_masks import Fixed

from atomr_trio.core import FinishReason, Internal
from atomr_trio.engine.engine import Engine

VOCAB = CONFIG.vocab_size
prompts = st.lists(st.integers(3, VOCAB - 1), min_size=1, max_size=20)


@pytest.fixture(scope="module")
def shared(programs_dir):
    engine = Engine(tiny_settings(programs_dir))
    engine.load()
    # Compiled one by one, as they are first wanted, they would take as long.
    engine.compile_everything()
    yield engine
    engine.close()


@pytest.fixture
def engine(shared):
    yield shared
    assert shared.idle
    assert shared.free_pages == 8 * MAX_LEN // 4


@pytest.fixture(scope="module")
def reference():
    return Reference()


@settings(max_examples=15)
@given(prompt=prompts, changes=draw_kit.changes(VOCAB))
def test_greedy_tokens_are_the_references(shared, reference, prompt, changes):
    tokens = alone(shared, request(0, prompt, 12, **changes))
    for at, token in enumerate(tokens):
        raw = reference.logprobs([*prompt, *tokens[:at]])[-1]
        wanted = draw_kit.edited(raw, draw_kit.row(prompt, tokens[:at], **changes))
        # Log probabilities differ from logits by a constant, which repetition does not leave alone.
        if changes.get("repetition_penalty", 1.0) == 1.0:
            assert wanted[token] == pytest.approx(wanted.max(), abs=1e-4)
        assert np.isfinite(wanted[token])
    ends = set() if changes.get("ignore_eos") else {*changes.get("eos_ids", [])}
    ends |= {*changes.get("stop_ids", [])}
    assert len(tokens) == 12 or (tokens[-1] in ends and len(tokens) > changes.get("min_tokens", 0))
    assert not ends & {*tokens[:-1]}


def sampled(prompt, changes, filters, seed, top):
    values = {"temperature": 1.0, **changes, **filters, "seed": seed, "logprobs": top > 0, "top_logprobs": top}
    return request(0, prompt, 10, **values)


requests = st.builds(
    sampled,
    prompts,
    st.just({}) | draw_kit.changes(VOCAB),
    st.fixed_dictionaries({}, optional={"temperature": st.sampled_from([0.0, 0.7]), "top_p": st.just(0.9)}),
    st.integers(0, 2**64 - 1),
    st.sampled_from([0, 0, 5]),
)


@settings(max_examples=15)
@given(wanted=st.lists(requests, min_size=2, max_size=8))
def test_the_same_seed_gives_the_same_text_alone_and_in_any_batch(shared, wanted):
    wanted = [msgspec.structs.replace(one, id=number) for number, one in enumerate(wanted)]
    expected = {one.id: alone(shared, one) for one in wanted}
    for one in wanted:
        shared.add(one)
        shared.step()
    # Everybody starts anew, as after a restart.
    for one in wanted:
        shared.abort(one.id)
    for one in wanted:
        shared.add(one)
    tokens, _ = collect(shared)
    assert {number: tokens.get(number, []) for number in expected} == expected


@settings(max_examples=10)
@given(prompt=prompts, cut=st.integers(0, 9), seed=st.integers(0, 2**64 - 1))
def test_penalties_count_what_an_earlier_process_said(shared, prompt, cut, seed):
    changes = {"temperature": 1.0, "seed": seed, "frequency_penalty": 1.5, "repetition_penalty": 1.3}
    whole = alone(shared, request(0, prompt, 10, **changes))
    assert alone(shared, request(1, prompt, 10, generated=whole[:cut], **changes)) == whole[cut:]


def test_the_best_tokens_come_with_each_token(engine, reference):
    prompt = [5, 6, 7]
    engine.add(request(0, prompt, 6, logprobs=True, top_logprobs=3, presence_penalty=2.0))
    engine.add(request(1, prompt, 6, logprobs=True))
    tokens, tops = [], []
    while not engine.idle:
        for output in engine.step().outputs:
            if output.id == 1:
                assert output.top_logprobs is None
                continue
            tokens += output.token_ids
            tops += output.top_logprobs
    for at, top in enumerate(tops):
        raw = reference.logprobs([*prompt, *tokens[:at]])[-1]
        best = np.argsort(-raw, kind="stable")[:3]
        assert [token for token, _ in top] == best.tolist()
        assert [logprob for _, logprob in top] == pytest.approx(raw[best].tolist(), abs=1e-4)


class Counting(Fixed):
    """Allows one token more each time, and in the end nothing."""

    def allowed(self, generated):
        self.asked.append(list(generated))
        return Fixed([10 + len(generated)] if len(generated) < 4 else [], VOCAB).words


def test_a_guide_decides_and_what_it_leaves_no_token_fails_alone(engine, reference):
    guide = Counting([], VOCAB)
    engine.add(request(0, [3, 4], 9, temperature=1.0, logprobs=True), guide)
    engine.add(request(1, [5, 6], 9))
    tokens, failed = {}, []
    while not engine.idle:
        result = engine.step()
        failed += result.failed
        for output in result.outputs:
            tokens.setdefault(output.id, []).extend(output.token_ids)
            if output.id == 0:
                assert all(map(math.isfinite, output.logprobs))
    assert tokens == {0: [10, 11, 12, 13], 1: reference.greedy([5, 6], 9)}
    assert guide.asked == [[], [10], [10, 11], [10, 11, 12], [10, 11, 12, 13]]
    ((number, error),) = failed
    assert number == 0
    assert isinstance(error, Internal)


def test_a_guided_answer_ends_where_the_guide_says(engine):
    engine.add(request(0, [3, 4], 9, eos_ids=[7]), Fixed([7], VOCAB))
    assert collect(engine)[1][0].finish_reason is FinishReason.STOP


def test_more_end_tokens_than_a_draw_holds_are_held_off_too(engine):
    ends = [*range(VOCAB - 20)]
    engine.add(request(0, [3, 4], 9, stop_ids=ends, min_tokens=5, temperature=2.0))
    tokens = collect(engine)[0][0]
    assert all(token >= VOCAB - 20 for token in tokens[:5])
    assert len(tokens) == 9 or tokens[-1] in ends


def test_nothing_is_compiled_after_warm_up_for_penalties_and_reports(engine):
    engine.compile_everything()
    events, ours = [], threading.get_ident()

    def listen(event, _seconds, **_):
        if "/compile/" in event and threading.get_ident() == ours:
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for number in range(8):
            engine.add(
                request(number, [5 + number] * 9, 30, repetition_penalty=1.1, logprobs=True, top_logprobs=number)
            )
            engine.step()
        collect(engine)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert events == []


def test_programs_that_are_lacking_are_compiled_beside_the_steps(programs_dir):
    """A step never waits for them: it says what it lacks, and the tokens are those of an engine that had them."""
    engine = Engine(tiny_settings(programs_dir, max_num_seqs=2))
    engine.load()
    try:
        wanted = request(0, [5, 6], 5, repetition_penalty=1.5, logprobs=True, top_logprobs=2)
        engine.add(wanted)
        tokens = []
        while not engine.idle:
            for output in engine.step(wait_for_programs=False).outputs:
                tokens += output.token_ids
        assert tokens == alone(engine, wanted)
    finally:
        engine.close()
