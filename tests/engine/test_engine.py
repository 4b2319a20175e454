"""The engine inline, on a tiny model: right tokens, whoever else is in the batch and whatever happens on the way."""

import threading

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import pytest
from engine_kit import CONFIG, MAX_LEN, Reference, alone, collect, request, tiny_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.core import (
    Backpressure,
    BadRequest,
    ContextLengthExceeded,
    CudaContextPoisoned,
    FinishReason,
    Internal,
    ModelLoadError,
    OutOfMemory,
)
from atomr_trio.engine.engine import Engine
from atomr_trio.engine.running_budget import RunningBudget
from atomr_trio.engine.settings import EngineSettings

prompts = st.lists(st.integers(3, CONFIG.vocab_size - 1), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def loaded(programs_dir):
    engine, stages = Engine(tiny_settings(programs_dir)), []
    ready = engine.load(lambda *progress: stages.append(progress))
    yield engine, ready, stages
    engine.close()


@pytest.fixture(scope="module")
def shared(loaded):
    return loaded[0]


@pytest.fixture
def engine(shared):
    """An engine that is idle before and after, with all of its pages."""
    yield shared
    assert shared.idle
    assert shared.free_pages == 8 * MAX_LEN // 4


@pytest.fixture(scope="module")
def reference():
    return Reference()


# --- right tokens


@settings(max_examples=15)
@given(prompt=prompts, count=st.integers(1, 12))
def test_greedy_tokens_and_logprobs_are_those_of_the_model(shared, reference, prompt, count):
    shared.add(request(0, prompt, count, logprobs=True, prompt_logprobs=True))
    tokens, scores, prompt_scores = [], [], None
    while not shared.idle:
        for output in shared.step().outputs:
            tokens += output.token_ids
            scores += output.logprobs
            if output.prompt_logprobs is not None:
                assert prompt_scores is None
                prompt_scores = output.prompt_logprobs
    assert tokens == reference.greedy(prompt, count)
    expected = reference.logprobs(prompt + tokens)
    whole = prompt + tokens
    assert prompt_scores[0] is None
    got = prompt_scores[1:] + scores
    assert got == pytest.approx([expected[i, whole[i + 1]] for i in range(len(whole) - 1)], abs=1e-4)


@settings(max_examples=10)
@given(prompt=prompts, top=st.integers(0, 20), mate=prompts)
def test_the_best_tokens_in_a_prompt_are_those_of_the_model(shared, reference, prompt, top, mate):
    shared.add(request(0, prompt, 2, prompt_logprobs=True, prompt_top_logprobs=top))
    shared.add(request(1, mate, 2, prompt_logprobs=True))
    outputs = []
    while not shared.idle:
        outputs += shared.step().outputs
    (first, *rest) = [output for output in outputs if output.id == 0]
    assert {output.prompt_top_logprobs for output in outputs if output.id == 1 or output in rest} == {None}
    if not top:
        assert first.prompt_top_logprobs is None
        return
    nothing, *places = first.prompt_top_logprobs
    assert nothing == []
    expected = reference.logprobs(prompt)
    for place, row in zip(places, expected, strict=False):
        best = sorted(row.tolist(), reverse=True)[:top]
        assert [logprob for _, logprob in place] == pytest.approx(best, abs=1e-4)
        assert [row[token] for token, _ in place] == pytest.approx(best, abs=1e-4)
    assert len(places) == len(prompt) - 1


@settings(max_examples=20)
@given(data=st.data())
def test_batch_mates_that_come_and_go_change_nothing(shared, data):
    def one(number):
        sampled = data.draw(st.booleans())
        return request(
            number,
            data.draw(prompts),
            data.draw(st.integers(1, 14)),
            temperature=1.0 if sampled else 0.0,
            top_k=data.draw(st.sampled_from([0, 5])),
            seed=data.draw(st.integers(0, 2**64 - 1)),
        )

    requests = [one(number) for number in range(data.draw(st.integers(2, 10)))]
    # All is drawn before the engine has any of it: a draw may end the example, and nobody would empty the engine.
    gone = st.none() | st.sampled_from([wanted.id for wanted in requests])
    moves = [(data.draw(st.integers(0, 4)), data.draw(gone)) for _ in requests]
    expected = {r.id: alone(shared, r) for r in requests}
    tokens, aborted = {}, set()
    for wanted, (steps, leaves) in zip(requests, moves, strict=True):
        shared.add(wanted)
        for _ in range(steps):
            for output in shared.step().outputs:
                tokens.setdefault(output.id, []).extend(output.token_ids)
        if leaves is not None and shared.abort(leaves):
            aborted.add(leaves)
    collect(shared, tokens)
    for wanted in requests:
        got = tokens.get(wanted.id, [])
        if wanted.id in aborted:
            assert got == expected[wanted.id][: len(got)]
        else:
            assert got == expected[wanted.id]
    assert shared.free_pages == 8 * MAX_LEN // 4


def test_eight_requests_decode_in_the_same_steps(engine):
    for number in range(8):
        engine.add(request(number, [10 + number, 5, 6], 20))
    together = 0
    while not engine.idle:
        together += len(engine.step().outputs) == 8
    assert together >= 10


@settings(max_examples=15)
@given(prompt=prompts, cut=st.integers(0, 12), temperature=st.sampled_from([0.0, 0.8]), seed=st.integers(0, 2**32))
def test_a_sequence_goes_on_where_another_process_left_it(shared, prompt, cut, temperature, seed):
    whole = alone(shared, request(0, prompt, 12, temperature=temperature, seed=seed))
    resumed = request(1, prompt, 12, temperature=temperature, seed=seed, generated=whole[:cut])
    assert alone(shared, resumed) == whole[cut:]


def test_running_out_of_pages_changes_no_token(engine):
    requests = [request(n, [20 + n] * 9, 40, temperature=n % 2, seed=n) for n in range(5)]
    expected = {r.id: alone(engine, r) for r in requests}
    before = engine.preemptions
    pool = engine._loaded.scheduler.pool
    # Just enough for one sequence of the longest kind.
    others = pool.take(pool.free - MAX_LEN // pool.page_size)
    for wanted in requests:
        engine.add(wanted)
    assert collect(engine)[0] == expected
    assert engine.preemptions > before
    pool.give_back(others)


# --- how sequences end


def test_an_end_token_ends_the_sequence_and_is_its_last(engine, reference):
    tokens = reference.greedy([7, 8, 9], 12)
    stop = tokens[5]
    first = tokens.index(stop)
    for field in ("eos_ids", "stop_ids"):
        engine.add(request(0, [7, 8, 9], 12, **{field: [stop]}))
        got, last = collect(engine)
        assert got[0] == tokens[: first + 1]
        assert last[0].finish_reason is FinishReason.STOP


def test_ignoring_the_end_token_goes_on_to_the_length(engine, reference):
    tokens = reference.greedy([7, 8, 9], 12)
    engine.add(request(0, [7, 8, 9], 12, eos_ids=[tokens[5]], ignore_eos=True))
    got, last = collect(engine)
    assert got[0] == tokens
    assert last[0].finish_reason is FinishReason.LENGTH


def test_the_end_token_is_not_drawn_before_min_tokens(engine, reference):
    stop = reference.greedy([7, 8, 9], 1)[0]
    assert alone(engine, request(0, [7, 8, 9], 12, eos_ids=[stop])) == [stop]
    later = alone(engine, request(1, [7, 8, 9], 12, eos_ids=[stop], min_tokens=4))
    assert stop not in later[:4]
    assert len(later) >= 4


def test_the_context_is_a_length_too(engine):
    engine.add(request(0, [5] * (MAX_LEN - 3), 100))
    got, last = collect(engine)
    assert len(got[0]) == 3
    assert last[0].finish_reason is FinishReason.LENGTH


def test_the_longest_prompt_still_gets_its_token(engine):
    assert len(alone(engine, request(0, [5] * (MAX_LEN - 1), 100))) == 1


@pytest.mark.parametrize(
    ("generated", "reason"),
    [([9] * 4, FinishReason.LENGTH), ([9, 2], FinishReason.STOP), ([9] * 60, FinishReason.LENGTH)],
)
def test_what_was_already_over_ends_without_a_step(engine, generated, reason):
    before = engine.steps
    max_tokens = 4 if len(generated) < 60 else 1000
    engine.add(request(0, [3, 4, 5, 6], max_tokens, generated=generated, eos_ids=[2]))
    assert not engine.idle
    tokens, last = collect(engine)
    assert tokens == {0: []}
    assert last[0].finish_reason is reason
    assert engine.steps == before


def test_what_was_already_over_can_be_aborted_like_the_rest(engine):
    engine.add(request(0, [3], 2, generated=[9, 9]))
    assert engine.abort(0)
    assert engine.idle


def test_an_aborted_request_gives_its_pages_back_in_every_phase(engine):
    pages = engine.free_pages
    engine.add(request(0, [5] * 40, 5, prompt_logprobs=True))
    engine.step()  # in its prompt
    assert engine.free_pages < pages
    assert engine.abort(0)
    engine.step()  # a step that it is in may be on the device
    assert engine.free_pages == pages
    engine.add(request(1, [5] * 4, 50))
    engine.step()
    engine.step()  # decoding
    assert engine.abort(1)
    engine.step()
    assert engine.free_pages == pages
    engine.add(request(2, [5] * 4, 5))  # waiting
    assert engine.abort(2)
    assert not engine.abort(2)
    assert not engine.abort(99)


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "error", "names"),
    [
        ({"prompt_ids": []}, BadRequest, "prompt"),
        ({"prompt_ids": [CONFIG.vocab_size]}, BadRequest, "prompt_ids"),
        ({"prompt_ids": [-1]}, BadRequest, "prompt_ids"),
        ({"prompt_ids": [3] * MAX_LEN}, ContextLengthExceeded, None),
        ({"generated": [2**40]}, BadRequest, "generated"),
        ({"stop_ids": [CONFIG.vocab_size]}, BadRequest, "stop_ids"),
        ({"max_tokens": 0}, BadRequest, "max_tokens"),
        ({"temperature": float("nan")}, BadRequest, "temperature"),
        ({"temperature": -1.0}, BadRequest, "temperature"),
        ({"top_p": 0.0}, BadRequest, "top_p"),
        ({"min_p": 1.5}, BadRequest, "min_p"),
        ({"top_k": -1}, BadRequest, "top_k"),
        ({"min_tokens": 1, "stop_ids": [*range(CONFIG.vocab_size)]}, BadRequest, "stop_token_ids"),
        ({"repetition_penalty": 0.0}, BadRequest, "repetition_penalty"),
        ({"repetition_penalty": float("nan")}, BadRequest, "repetition_penalty"),
        ({"presence_penalty": 2.5}, BadRequest, "presence_penalty"),
        ({"frequency_penalty": float("-inf")}, BadRequest, "frequency_penalty"),
        ({"logit_bias": [(CONFIG.vocab_size, 1.0)]}, BadRequest, "logit_bias"),
        ({"logit_bias": [(3, float("nan"))]}, BadRequest, "logit_bias"),
        ({"logit_bias": [(3, 0.0)] * 1025}, BadRequest, "logit_bias"),
        ({"logprobs": True, "top_logprobs": 21}, BadRequest, "top_logprobs"),
        ({"top_logprobs": 1}, BadRequest, "top_logprobs"),
        ({"prompt_logprobs": True, "prompt_top_logprobs": 21}, BadRequest, "prompt_logprobs"),
        ({"prompt_top_logprobs": 1}, BadRequest, "prompt_logprobs"),
        ({"prompt_ids": [5] * 2**17, "prompt_logprobs": True, "prompt_top_logprobs": 2}, BadRequest, "prompt_logprobs"),
    ],
)  # fmt: skip
def test_what_can_never_run_is_refused_and_touches_nothing(engine, changes, error, names):
    with pytest.raises(error) as caught:
        engine.add(msgspec.structs.replace(request(0, [3, 4]), **changes))
    assert getattr(caught.value, "param", None) == names
    assert engine.idle


def test_a_number_in_use_is_refused_and_its_owner_goes_on(engine, reference):
    engine.add(request(0, [3, 4], 3))
    with pytest.raises(BadRequest):
        engine.add(request(0, [5, 6], 3))
    assert collect(engine)[0] == {0: reference.greedy([3, 4], 3)}


def test_a_full_queue_refuses(engine):
    for number in range(engine.settings.max_waiting):
        engine.add(request(number, [3], 1))
    with pytest.raises(Backpressure):
        engine.add(request(99, [3]))
    assert len(collect(engine)[0]) == engine.settings.max_waiting


def test_a_missing_model_says_so_without_its_path(tmp_path):
    with pytest.raises(ModelLoadError) as caught:
        Engine(EngineSettings(model=str(tmp_path / "secret.gguf"))).load()
    assert "secret" not in str(caught.value)


def test_an_engine_that_is_not_loaded_says_so():
    engine = Engine(EngineSettings(load_format="dummy"))
    assert engine.idle
    assert (engine.running, engine.waiting, engine.compiling) == (0, 0, False)
    with pytest.raises(RuntimeError, match="not loaded"):
        engine.add(request(0, [3]))
    engine.close()


def test_ready_says_what_was_chosen(loaded):
    _, ready, stages = loaded
    assert (ready.dtype, ready.backend, ready.max_model_len) == ("float32", "cpu", MAX_LEN)
    assert ready.num_pages * ready.page_size == 8 * MAX_LEN
    assert stages[0][0] == "compile"
    assert stages[-1][1] == stages[-1][2] > 0


# --- compilation


def test_nothing_is_compiled_after_warm_up(engine):
    engine.compile_everything()
    programs = engine._loaded.programs.compiled
    events, ours = [], threading.get_ident()

    def listen(event, _seconds, **_):
        if "/compile/" in event and threading.get_ident() == ours:
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for number in range(8):
            engine.add(request(number, [5 + number] * (3 * number + 1), 15, temperature=number % 2, seed=number))
            engine.step()
        collect(engine)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert events == []
    assert engine._loaded.programs.compiled == programs


def test_programs_that_are_run_on_nothing_leave_the_cache_as_it_is(engine, reference):
    prompt = [5 + n % 7 for n in range(20)]
    engine.add(request(0, prompt, 4))
    first, _ = collect(engine)
    engine.compile_everything()
    assert engine.use_quiet()
    while engine.use_quiet():
        pass
    engine.add(request(1, prompt, 4))
    outputs = []
    while not engine.idle:
        assert not engine.use_quiet()
        outputs += engine.step().outputs
    # Found in the pages that were written before, and they hold what was written.
    assert outputs[-1].cached_tokens > 0
    assert [token for output in outputs for token in output.token_ids] == first[0] == reference.greedy(prompt, 4)


def test_a_program_that_cannot_be_run_ahead_of_time_fails_nobody(engine, monkeypatch, reference, caplog):
    prompt = [9, 8, 7, 6, 5, 4]
    engine.add(request(0, prompt, 3))
    collect(engine)
    executor = engine._loaded.executor
    key = engine._loaded.first[0]
    executor._ran.discard(key)

    def lose(state, *_):
        for leaf in jax.tree.leaves(state._kv):
            leaf.delete()
        raise jax_error("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr("atomr_trio.engine.execution.run_dry", lose)
    assert engine.use_quiet()
    assert "ahead of time" in caplog.text
    engine.add(request(1, prompt, 3))
    tokens, last = collect(engine)
    assert tokens == {1: reference.greedy(prompt, 3)}
    assert last[1].cached_tokens == 0


def test_an_engine_that_stands_by_has_no_cache_until_it_is_needed(programs_dir, reference):
    engine = Engine(tiny_settings(programs_dir))
    engine.load(standby=True)
    engine.stand_by(lambda: False)
    assert not any(map(engine._loaded.executor.has_run, engine._loaded.first))
    engine.stand_by(lambda: True)
    assert engine._loaded.executor.state._kv == []
    assert all(map(engine._loaded.executor.has_run, engine._loaded.first))
    engine.activate()
    engine.add(request(0, [3, 4, 5], 6))
    assert collect(engine)[0] == {0: reference.greedy([3, 4, 5], 6)}
    engine.close()


def test_another_engine_finds_all_programs_in_the_cache(engine, programs_dir):
    engine.compile_everything()
    events = []

    def listen(event, **_):
        if "/compilation_cache/" in event:
            events.append(event.rsplit("/")[-1])

    other = Engine(tiny_settings(programs_dir))
    jax.monitoring.register_event_listener(listen)
    try:
        other.load()
    finally:
        jax.monitoring.unregister_event_listener(listen)
        other.close()
    assert "cache_hits" in events
    assert "cache_misses" not in events


# --- trouble on the device


class Fault:
    """Makes the next step programs fail: before they run, or after they have taken the cache."""

    def __init__(self, monkeypatch, engine):
        self.programs = engine._loaded.programs
        self.real = self.programs.choose
        self.todo = []
        monkeypatch.setattr(type(self.programs), "choose", lambda _self, *args: self.choose(*args))

    def choose(self, *args):
        key, program = self.real(*args)
        return (key, self.wrap(program, *self.todo.pop(0))) if self.todo else (key, program)

    def wrap(self, program, error, after):
        def failing(*inputs):
            if after:
                program(*inputs)
            raise error

        return failing


@pytest.fixture
def fault(monkeypatch, engine):
    return Fault(monkeypatch, engine)


def jax_error(text):
    return jax.errors.JaxRuntimeError(text)


def start_all(engine, count=6):
    requests = [request(n, [30 + n] * (n + 2), 10, temperature=n % 2, seed=n) for n in range(count)]
    expected = {r.id: alone(engine, r) for r in requests}
    for wanted in requests:
        engine.add(wanted)
    tokens = {}
    for _ in range(count + 1):
        for output in engine.step().outputs:
            tokens.setdefault(output.id, []).extend(output.token_ids)
    return expected, tokens


@pytest.mark.parametrize("after", [False, True], ids=["cache kept", "cache lost"])
def test_out_of_memory_computes_everything_again_with_fewer_at_once(engine, fault, monkeypatch, caplog, after):
    # And back to 8 afterwards.
    monkeypatch.setattr(engine._loaded.scheduler, "max_running", 8)
    monkeypatch.setattr(engine._stepper, "_budget", RunningBudget(8))
    expected, tokens = start_all(engine)
    fault.todo = [(jax_error("RESOURCE_EXHAUSTED: Out of memory"), after)]
    assert engine.step().outputs == []
    assert engine.running == 0
    seen = 0
    while not engine.idle:
        for output in engine.step().outputs:
            tokens[output.id] += output.token_ids
        seen = max(seen, engine.running)
    assert tokens == expected
    assert seen == 3
    assert "RESOURCE_EXHAUSTED" in caplog.text


def test_out_of_memory_with_one_sequence_is_tried_again_once(engine, fault, monkeypatch, reference, caplog):
    monkeypatch.setattr(engine._loaded.scheduler, "max_running", 8)
    monkeypatch.setattr(engine._stepper, "_budget", RunningBudget(8))
    out_of_memory = jax_error("RESOURCE_EXHAUSTED: Out of memory"), False
    engine.add(request(0, [3], 5))
    fault.todo = [out_of_memory]
    assert collect(engine)[0] == {0: reference.greedy([3], 5)}
    engine.add(request(0, [3], 5))
    fault.todo = [out_of_memory] * 2
    engine.step()
    with pytest.raises(OutOfMemory):
        engine.step()
    engine.abort(0)


@pytest.mark.parametrize(
    ("error", "after"),
    [(TypeError("bad shapes at /some/path"), False), (ValueError("x"), True), (jax_error("INVALID_ARGUMENT: x"), True)],
    ids=["tracing", "cache lost", "device"],
)
def test_a_bug_that_does_not_come_again_fails_nobody(engine, fault, caplog, error, after):
    expected, tokens = start_all(engine)
    fault.todo = [(error, after)]
    assert engine.step().failed == []
    assert collect(engine, tokens)[0] == expected
    assert type(error).__name__ in caplog.text


class BadData:
    """Makes every step fail that has a part of these requests."""

    def __init__(self, monkeypatch, engine, bad, error, company=1):
        self.engine, self.failed = engine, {}
        real = type(engine._loaded.executor).start

        def start(executor, work):
            ids = {sequence.id for sequence in work.plan.sequences}
            if ids & bad and len(ids) >= company:
                raise error
            return real(executor, work)

        monkeypatch.setattr(type(engine._loaded.executor), "start", start)

    def finish(self, tokens):
        while not self.engine.idle:
            result = self.engine.step()
            self.failed |= dict(result.failed)
            for output in result.outputs:
                tokens.setdefault(output.id, []).extend(output.token_ids)
        return tokens


@settings(max_examples=15)
@given(bad=st.sets(st.integers(0, 5), min_size=1, max_size=3), temperature=st.sampled_from([0.0, 1.0]))
def test_a_bug_in_the_data_of_some_fails_them_alone(shared, bad, temperature):
    free = shared.free_pages
    requests = [request(n, [30 + n] * (5 * n + 2), 10, temperature=temperature, seed=n) for n in range(6)]
    expected = {r.id: alone(shared, r) for r in requests}
    with pytest.MonkeyPatch.context() as patch:
        world = BadData(patch, shared, bad, ValueError("bad shapes at /some/path"))
        for wanted in requests:
            shared.add(wanted)
        tokens = world.finish({})
    assert world.failed.keys() == bad
    assert all(isinstance(e, Internal) and "path" not in str(e) for e in world.failed.values())
    assert tokens == {n: expected[n] for n in expected if n not in bad}
    assert shared.free_pages == free


def test_what_fails_in_company_only_ends_in_the_end(engine, monkeypatch, caplog):
    for number in range(3):
        engine.add(request(number, [3 + number], 40))
    world = BadData(monkeypatch, engine, {1}, ValueError("x"), company=2)
    tokens = world.finish({})
    assert len(world.failed) >= 2
    assert all(len(tokens[number]) >= 3 for number in range(3))
    assert engine.idle


def test_poison_is_the_end_and_keeps_its_text_to_itself(engine, fault, caplog):
    engine.add(request(0, [3], 5))
    text = "INTERNAL: /usr/lib/x.so CUDA_ERROR_ILLEGAL_ADDRESS: illegal memory access"
    fault.todo = [(jax_error(text), False)]
    with pytest.raises(CudaContextPoisoned) as caught:
        engine.step()
    engine.abort(0)
    assert caught.value.message == "CUDA_ERROR_ILLEGAL_ADDRESS"


def test_a_row_that_is_not_a_number_fails_alone(engine, monkeypatch, reference):
    engine.add(request(0, [3, 4, 5], 6))
    engine.add(request(1, [6, 7], 6))
    tokens = {}
    for _ in range(2):
        for output in engine.step().outputs:
            tokens.setdefault(output.id, []).extend(output.token_ids)
    real = engine._loaded.programs.choose

    def poisoned(_self, *args):
        key, program = real(*args)

        def run(*inputs):
            kv, view, logits = program(*inputs)
            return kv, view, jnp.asarray(np.asarray(logits)).at[0].set(jnp.nan)

        return key, run

    with monkeypatch.context() as patch:
        patch.setattr(type(engine._loaded.programs), "choose", poisoned)
        # The first of the two lands a step that was sent before.
        results = [engine.step(), engine.step()]
    assert [number for result in results for number, _ in result.failed] == [0]
    for result in results:
        for output in result.outputs:
            tokens[output.id] += output.token_ids
    assert collect(engine, tokens)[0][1] == reference.greedy([6, 7], 6)
