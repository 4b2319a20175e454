"""Several tokens of each row in one program are those of as many steps, whatever happens on the way."""

import math
import threading

import jax
import msgspec
import numpy as np
import pytest
from attrs import evolve
from engine_kit import CONFIG, collect, request, tiny_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.core import FinishReason, Internal
from atomr_trio.engine import decode_view
from atomr_trio.engine.device_state import DeviceState
from atomr_trio.engine.drawing import DrawnToken
from atomr_trio.engine.engine import Engine
from atomr_trio.engine.readout import Drawn
from atomr_trio.engine.settings import EngineSettings

STEPS = 4
LONGEST = 32
PAGES = 24
"""Of 4 tokens: enough for views of one and two rows, not of four, so that both kinds of loops run."""

prompts = st.lists(st.integers(3, CONFIG.vocab_size - 1), min_size=1, max_size=16)


def loaded(programs_dir, **changes):
    sizes = {"max_num_seqs": 4, "max_model_len": LONGEST, "kv_tokens": 4 * PAGES}
    engine = Engine(tiny_settings(programs_dir, **sizes, **changes))
    engine.load()
    return engine


@pytest.fixture(scope="module")
def plain(programs_dir):
    engine = loaded(programs_dir, decode_steps=1)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def looping(programs_dir):
    engine = loaded(programs_dir, decode_steps=STEPS)
    keys = engine._loaded.executor._buckets.everything()
    # Hardly a test asks for the others, and each takes seconds.
    engine._loaded.programs.warm_up([key for key in keys if key.kind not in {"edit", "report"}], lambda *_: None)
    yield engine
    engine.close()


@pytest.fixture
def engine(looping):
    yield looping
    assert looping.idle
    assert looping.free_pages == PAGES


def outputs_of(engine, requests):
    for wanted in requests:
        engine.add(wanted)
    outputs = {}
    while not engine.idle:
        for output in engine.step().outputs:
            outputs.setdefault(output.id, []).append(output)
    return outputs


def answer_of(outputs):
    """Tokens, log probabilities and finish reason, from all outputs of a sequence."""
    scores = [score for output in outputs for score in output.logprobs or ()]
    return [token for output in outputs for token in output.token_ids], scores, outputs[-1].finish_reason


def alone(engine, wanted):
    return answer_of(outputs_of(engine, [wanted])[wanted.id])


def sampled(number, prompt, max_tokens, temperature, seed, **changes):
    return request(
        number, prompt, max_tokens, temperature=temperature, seed=seed, top_p=0.9, logprobs=seed % 2 == 0, **changes
    )


requests_and_ends = st.tuples(
    st.builds(
        sampled,
        st.just(0),
        prompts,
        st.integers(1, LONGEST),
        st.sampled_from([0.0, 1.0]),
        st.integers(0, 2**64 - 1),
        min_tokens=st.sampled_from([0, 0, 3]),
    ),
    # Which token of its answer ends it, if one does.
    st.none() | st.integers(0, LONGEST),
    # Steps after it came, and who leaves then.
    st.integers(0, 4),
    st.none() | st.none() | st.integers(0, 5),
)


def with_end(plain, number, wanted, place):
    wanted = msgspec.structs.replace(wanted, id=number)
    tokens, _, _ = alone(plain, wanted)
    ends = [] if place is None else [tokens[place % len(tokens)]]
    return msgspec.structs.replace(wanted, eos_ids=ends)


@settings(max_examples=25, deadline=None)
@given(drawn=st.lists(requests_and_ends, min_size=1, max_size=6), ahead=st.sampled_from([1, 2]))
def test_answers_are_those_of_single_steps_whoever_comes_and_goes(plain, looping, drawn, ahead):
    requests = [with_end(plain, number, *asked[:2]) for number, asked in enumerate(drawn)]
    expected = {wanted.id: alone(plain, wanted) for wanted in requests}
    looping._stepper._ahead = ahead  # both are idle between examples
    outputs, aborted = {wanted.id: [] for wanted in requests}, set()

    def step():
        for output in looping.step().outputs:
            outputs[output.id].append(output)

    for wanted, (_, _, steps, gone) in zip(requests, drawn, strict=True):
        looping.add(wanted)
        for _ in range(steps):
            step()
        if gone is not None and looping.abort(gone):
            aborted.add(gone)
    while not looping.idle:
        step()
    for number, (tokens, scores, reason) in expected.items():
        got = answer_of(outputs[number]) if outputs[number] else ([], [], None)
        if number in aborted:
            tokens, scores, reason = tokens[: len(got[0])], scores[: len(got[1])], None
        assert (got[0], got[2]) == (tokens, reason)
        assert got[1] == pytest.approx(scores, abs=1e-4)
    assert looping.free_pages == PAGES


@pytest.fixture
def loops(monkeypatch):
    """Counts the loops that are dispatched, by kind."""
    counts = {"decodes": 0, "views": 0}
    for name, kind in (("loop", "decodes"), ("loop_view", "views")):
        real = getattr(DeviceState, name)

        def counting(self, key, *args, real=real, kind=kind):
            assert key.kind == kind
            counts[kind] += 1
            return real(self, key, *args)

        monkeypatch.setattr(DeviceState, name, counting)
    return counts


@pytest.mark.parametrize("ahead", [1, 2])
@pytest.mark.parametrize(("count", "prompt", "kind"), [(2, 5, "views"), (4, 10, "decodes")])
def test_both_kinds_of_loops_say_what_single_steps_say(engine, plain, loops, monkeypatch, ahead, count, prompt, kind):
    monkeypatch.setattr(engine._stepper, "_ahead", ahead)
    requests = [sampled(n, [9 + n] * prompt, 18, n % 2, 2 * n) for n in range(count)]
    expected = outputs_of(plain, requests)
    assert loops == {"decodes": 0, "views": 0}
    got = outputs_of(engine, requests)
    assert loops[kind] > 0
    for wanted in requests:
        tokens, scores, reason = answer_of(got[wanted.id])
        assert (tokens, reason) == answer_of(expected[wanted.id])[::2]
        assert scores == pytest.approx(answer_of(expected[wanted.id])[1], abs=1e-4)
        assert STEPS in {len(output.token_ids) for output in got[wanted.id]}
        assert all(len(output.token_ids) == len(output.logprobs) for output in got[wanted.id])


def test_the_last_tokens_come_one_by_one(engine):
    lengths = [len(output.token_ids) for output in outputs_of(engine, [request(0, [5, 6], 11)])[0]]
    assert lengths == [1, 4, 4, 1, 1]


@pytest.mark.parametrize("place", range(4))
def test_an_end_on_the_way_is_the_last_token(engine, plain, place):
    tokens, expected, _ = alone(plain, sampled(0, [7, 8], 12, 1.0, 4))
    at = place + 1  # the first token is the prompt's
    end = tokens[at]
    first = tokens.index(end)
    got, scores, reason = alone(engine, sampled(0, [7, 8], 12, 1.0, 4, eos_ids=[end]))
    assert got == tokens[: first + 1]
    assert scores == pytest.approx(expected[: first + 1], abs=1e-4)
    assert reason is FinishReason.STOP


def test_who_is_aborted_in_a_loop_leaves_the_others_as_they_are(engine, plain):
    requests = [request(n, [3 + n] * 5, 20) for n in range(2)]
    expected = alone(plain, requests[1])
    for wanted in requests:
        engine.add(wanted)
    outputs = []
    for _ in range(3):
        outputs += engine.step().outputs
    assert engine.abort(0)
    while not engine.idle:
        landed = engine.step().outputs
        assert all(output.id == 1 for output in landed)
        outputs += landed
    assert answer_of([output for output in outputs if output.id == 1]) == expected


def test_a_guided_sequence_gets_its_tokens_one_by_one(engine, loops):
    engine.add(request(0, [5, 6], 8, presence_penalty=1.0))
    collect(engine)
    assert loops == {"decodes": 0, "views": 0}


def test_while_a_loop_is_compiled_single_steps_serve(engine, plain, loops, monkeypatch):
    programs, asked = engine._loaded.programs, []
    there = {key: program for key, program in programs._compiled.items() if not key.is_loop}
    monkeypatch.setattr(programs, "_compiled", there)
    monkeypatch.setattr(type(programs), "prepare", lambda _, keys: asked.extend(keys))
    wanted = request(0, [5, 6], 11)
    assert alone(engine, wanted) == alone(plain, wanted)
    assert loops == {"decodes": 0, "views": 0}
    assert any(key.is_loop for key in asked)


def test_nothing_is_compiled_after_warm_up(engine, loops):
    engine.compile_everything()
    programs = engine._loaded.programs.compiled
    events, ours = [], threading.get_ident()

    def listen(event, _seconds, **_):
        if "/compile/" in event and threading.get_ident() == ours:
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for number in range(4):
            # The last of them is alone for a while.
            prompt, length = [5 + number] * (2 * number + 3), 8 + 6 * number
            engine.add(request(number, prompt, length, temperature=number % 2, seed=number))
            engine.step()
        collect(engine)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert min(loops.values()) > 0
    assert events == []
    assert engine._loaded.programs.compiled == programs


# --- what is no number


def break_draws(monkeypatch, at, row=0):
    """From turn ``at`` of each loop on, a row has nothing to draw from."""
    real = DeviceState.loop_view

    def broken(self, *args):
        looped = real(self, *args)
        drawn = np.array(looped.drawn)
        for index, one in enumerate(looped.rows):
            if one is not None and one.sequence.id == row:
                drawn[at:, index, 1] = np.float32(math.nan).view(np.int32)
        return type(looped)(looped.rows, jax.device_put(drawn))

    monkeypatch.setattr(DeviceState, "loop_view", broken)


@pytest.mark.parametrize("at", range(4))
def test_a_row_that_is_not_a_number_on_the_way_fails_alone(engine, plain, monkeypatch, at):
    expected = alone(plain, request(1, [6, 7], 12))
    break_draws(monkeypatch, at)
    engine.add(request(0, [3, 4, 5], 12))
    engine.add(request(1, [6, 7], 12))
    outputs, failed = [], []
    while not engine.idle:
        result = engine.step()
        assert not {number for number, _ in result.failed} & {output.id for output in result.outputs}
        outputs += result.outputs
        failed += result.failed
    assert [(number, type(error)) for number, error in failed] == [(0, Internal)]
    assert answer_of([output for output in outputs if output.id == 1]) == expected


def test_what_is_not_a_number_after_the_end_is_nobodys_concern(engine, plain, monkeypatch):
    tokens, _, _ = alone(plain, request(0, [7, 8], 12))
    break_draws(monkeypatch, 2)
    # The second token of the first loop.
    got, _, reason = alone(engine, request(0, [7, 8], 12, eos_ids=[tokens[2]]))
    assert got == tokens[: tokens.index(tokens[2]) + 1]
    assert reason is FinishReason.STOP


def test_nothing_is_taken_after_what_is_not_a_number():
    drawn = Drawn()
    for token, logprob in ((5, -1.0), (6, math.nan), (7, -1.0)):
        drawn.add(0, DrawnToken(token, logprob))
    assert drawn.tokens == {0: [5]}
    assert drawn.broken == {0}


@pytest.mark.parametrize("steps", [0, -1])
def test_less_than_one_token_is_refused(steps):
    with pytest.raises(ValueError, match="decode_steps must be at least 1"):
        EngineSettings(load_format="dummy", decode_steps=steps)


def test_a_cpu_decodes_step_by_step_unless_it_is_told_otherwise(plain, programs_dir):
    auto = loaded(programs_dir)
    try:
        assert auto._loaded.scheduler.limits == plain._loaded.scheduler.limits
        assert auto._loaded.scheduler.limits.decode_steps == 1
    finally:
        auto.close()


def test_the_longest_answer_ends_at_the_context(engine):
    tokens, _, reason = alone(engine, request(0, [5] * 9, 500))
    assert (len(tokens), reason) == (LONGEST - 9, FinishReason.LENGTH)


def test_who_stays_in_the_view_is_filled_once(engine, monkeypatch):
    filled, real = [], decode_view._packed_fill

    def counting(key, index, row):
        filled.append(row.sequence.id)
        return real(key, index, row)

    monkeypatch.setattr(decode_view, "_packed_fill", counting)
    # Two loops, then single steps.
    outputs_of(engine, [request(0, [5, 6], 11)])
    assert filled == [0]


def test_a_row_of_a_loop_is_as_long_as_all_of_its_tokens(engine):
    """So that pages, and the place in the view, are those at its end."""
    engine.add(request(0, [5, 6], 11))
    engine.step()
    executor, plan = engine._loaded.executor, engine._loaded.scheduler.schedule()
    [row] = executor.prepare(plan).decodes
    assert (row.count, row.end) == (STEPS, plan.decodes[0].num_computed + STEPS)
    [row] = executor.prepare(evolve(plan, steps=1)).decodes
    assert row.count == 1
    collect(engine)
