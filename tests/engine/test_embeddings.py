"""Embeddings out of the engine: the model's own output, however it is cut, whoever else is there, whatever fails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from engine_kit import CONFIG, MAX_LEN, Reference, collect, request, tiny_settings, unit, vector
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_decoder import reference_hidden

from atomr_trio.core import BadRequest, ContextLengthExceeded, FinishReason, Grammar, Internal
from atomr_trio.engine.engine import Engine
from atomr_trio.engine.settings import EngineSettings
from tests.checkpoints import config_of, random_tensors, write_folder

PAGES = 24
PROMPTS = ([5], [7, 9, 250, 31, 99, 3, 28], [(37 * at + 11) % 300 for at in range(39)], [11, 12] * 32)
POOLINGS = ("last", "mean")
CLOSE = {"atol": 1e-5}
prompts = st.lists(st.integers(3, CONFIG.vocab_size - 1), min_size=1, max_size=40)
jobs = st.lists(st.tuples(st.sampled_from([None, *POOLINGS]), prompts), min_size=1, max_size=9)


@pytest.fixture(scope="module")
def shared(programs_dir):
    """Little more than the longest request takes alone: some have to give their pages up."""
    engine = Engine(tiny_settings(programs_dir, max_num_seqs=4, kv_tokens=4 * PAGES))
    engine.load()
    yield engine
    engine.close()


@pytest.fixture
def engine(shared):
    shared._loaded.scheduler.pool.forget_all()
    yield shared
    shared.on_dispatch = None
    assert shared.idle
    assert shared.free_pages == PAGES
    assert shared._poolings._open == {}


@pytest.fixture(scope="module")
def reference():
    return Reference()


def embed(engine, prompt, pooling, number=0):
    engine.add(request(number, prompt, pooling=pooling))
    [output] = [collect(engine)[1][number]]
    assert (output.token_ids, output.finish_reason) == ([], FinishReason.STOP)
    return vector(output), output.cached_tokens


# --- the right numbers


@pytest.mark.parametrize("family", ["qwen3", "gemma3"])
def test_a_folder_of_a_family_equals_the_plain_reference(tmp_path, programs_dir, family):
    config = config_of(family)
    tensors = random_tensors(config)
    engine = Engine(
        EngineSettings(
            model=str(write_folder(tmp_path / "model", config, tensors)),
            dtype="float32",
            max_num_seqs=2,
            max_model_len=64,
            page_size=8,
            kv_tokens=256,
            prefill_chunk=16,
            cache_dir=programs_dir,
        )
    )
    engine.load()
    for number, prompt in enumerate(PROMPTS):
        engine.add(request(number, prompt, pooling="last"))
        engine.add(request(number + 10, prompt, pooling="mean"))
    found = collect(engine)[1]
    engine.close()
    for number, prompt in enumerate(PROMPTS):
        hidden = reference_hidden(config, tensors, prompt)
        np.testing.assert_allclose(vector(found[number]), unit(hidden[-1]), atol=1e-4)
        np.testing.assert_allclose(vector(found[number + 10]), unit(hidden.mean(axis=0)), atol=1e-4)


@settings(max_examples=15)
@given(jobs=jobs, before=st.integers(0, 3), _seed=st.random_module())
def test_company_changes_nothing(shared, reference, jobs, before, _seed):
    found = {}
    for number, (pooling, prompt) in enumerate(jobs):
        shared.add(request(number, prompt, 6, pooling=pooling))
        for _ in range(before * (number % 3 == 0)):
            for output in shared.step().outputs:
                found.setdefault(output.id, []).append(output)
    while not shared.idle:
        for output in shared.step().outputs:
            found.setdefault(output.id, []).append(output)
    for number, (pooling, prompt) in enumerate(jobs):
        if pooling is None:
            assert [id for output in found[number] for id in output.token_ids] == reference.greedy(prompt, 6)
            assert {output.embedding for output in found[number]} == {None}
        else:
            [output] = found[number]
            np.testing.assert_allclose(vector(output), reference.embedding(prompt, pooling), **CLOSE)
    assert shared.free_pages == PAGES


@pytest.mark.parametrize("pooling", POOLINGS)
def test_how_a_prompt_is_cut_does_not_matter(engine, reference, pooling):
    """It fills the context, in four chunks; the reference cuts nothing."""
    prompt = [3 + n % 50 for n in range(MAX_LEN)]
    np.testing.assert_allclose(embed(engine, prompt, pooling)[0], reference.embedding(prompt, pooling), **CLOSE)


def test_short_prompts_share_programs(engine, reference):
    for kind in ("ends", "sums"):
        engine._loaded.programs.get(engine._loaded.executor._buckets.chunk(1, 1, rows=4, kind=kind))
    for number in range(8):
        engine.add(request(number, [9 + number] * (number % 3 + 1), pooling=POOLINGS[number % 2]))
    found = collect(engine)[1]
    for number in range(8):
        wanted = reference.embedding([9 + number] * (number % 3 + 1), POOLINGS[number % 2])
        np.testing.assert_allclose(vector(found[number]), wanted, **CLOSE)


# --- the prefix cache


def test_the_last_state_goes_on_from_what_was_computed_before_and_the_mean_does_not(engine, reference):
    prompt = list(range(5, 35))
    engine.add(request(0, prompt, 4))
    collect(engine)
    last, cached = embed(engine, [*prompt, 40, 41], "last", 1)
    mean, computed = embed(engine, [*prompt, 40, 41], "mean", 2)
    assert (cached, computed) == (len(prompt) // 4 * 4, 0)
    np.testing.assert_allclose(last, reference.embedding([*prompt, 40, 41], "last"), **CLOSE)
    np.testing.assert_allclose(mean, reference.embedding([*prompt, 40, 41], "mean"), **CLOSE)


def test_others_go_on_from_what_was_computed_for_an_embedding(engine, reference):
    prompt = list(range(5, 35))
    embed(engine, prompt, "mean")
    engine.add(request(1, prompt, 4))
    tokens, last = collect(engine)
    assert tokens[1] == reference.greedy(prompt, 4)
    assert last[1].cached_tokens > 0


# --- programs


def test_programs_can_be_warm(programs_dir, reference):
    engine = Engine(tiny_settings(programs_dir, max_num_seqs=4, kv_tokens=4 * PAGES, warm_pooling="mean"))
    engine.load()
    assert {key.kind for key in engine._loaded.later} >= {"sums"}
    engine.add(request(0, [5, 6, 7], pooling="mean"))
    # No step has to wait for a program.
    results = [engine.step(wait_for_programs=False)]
    while not engine.idle:
        results.append(engine.step(wait_for_programs=False))
    assert not any(result.lacking for result in results)
    [output] = [output for result in results for output in result.outputs]
    np.testing.assert_allclose(vector(output), reference.embedding([5, 6, 7], "mean"), **CLOSE)
    assert engine.use_quiet()
    engine.close()


# --- trouble


@settings(max_examples=15)
@given(
    jobs=jobs,
    faults=st.lists(st.integers(1, 25), unique=True, max_size=3),
    memory=st.booleans(),
    _seed=st.random_module(),
)
def test_a_step_that_fails_is_computed_again(shared, reference, jobs, faults, memory, _seed):
    dispatched = iter(range(1, 10_000))
    # What an example before this one has left, if it failed.
    for number in range(10):
        shared.abort(number)
    collect(shared)

    def fail_now_and_then():
        if next(dispatched) in faults:
            present = {sequence for flight in shared._stepper._flights for sequence in flight.plan.sequences}
            # Where memory does not suffice for one, it is over.
            if memory and len(present) > 1:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
            raise ValueError("a bug")

    for number, (pooling, prompt) in enumerate(jobs):
        shared.add(request(number, prompt, 3, pooling=pooling))
    shared.on_dispatch = fail_now_and_then
    tokens, last, failed, finished = {}, {}, [], []
    while not shared.idle:
        result = shared.step()
        failed += result.failed
        for output in result.outputs:
            tokens.setdefault(output.id, []).extend(output.token_ids)
            last[output.id] = output
            finished += [output.id] if output.finish_reason is not None else []
    shared.on_dispatch = None
    # A failure makes suspects, and each one after it may find a suspect alone, who is then taken for guilty.
    assert len(failed) <= max(0, len(faults) - 1)
    # Everybody ends once, in either way.
    assert sorted([*finished, *(number for number, _ in failed)]) == list(range(len(jobs)))
    for number in finished:
        output = last[number]
        pooling, prompt = jobs[number]
        if pooling is None:
            assert tokens[number] == reference.greedy(prompt, 3)
        else:
            np.testing.assert_allclose(vector(output), reference.embedding(prompt, pooling), **CLOSE)
    assert shared._poolings._open == {}
    assert shared.free_pages == PAGES


@pytest.mark.parametrize("pooling", POOLINGS)
def test_what_is_no_number_fails_its_request_alone(engine, monkeypatch, reference, pooling):
    real = engine._loaded.programs.choose

    def poisoned(_self, *args):
        key, program = real(*args)
        if key.kind not in ("ends", "sums"):
            return key, program

        def run(*inputs):
            kv, pooled, scores = program(*inputs)
            return kv, pooled.at[0, 0].set(jnp.nan), scores

        return key, run

    monkeypatch.setattr(type(engine._loaded.programs), "choose", poisoned)
    engine.add(request(0, [5] * 30, pooling=pooling))
    engine.add(request(1, [6, 7], 4))
    tokens, failed = {}, []
    while not engine.idle:
        result = engine.step()
        failed += result.failed
        for output in result.outputs:
            tokens.setdefault(output.id, []).extend(output.token_ids)
    [(number, error)] = failed
    assert number == 0
    assert isinstance(error, Internal)
    assert tokens == {1: reference.greedy([6, 7], 4)}
    monkeypatch.undo()
    # Nobody finds what was computed for it.
    assert embed(engine, [5] * 30, pooling, 2)[1] == 0


def test_an_abort_half_way_leaves_nothing(engine):
    engine.add(request(0, [5] * 40, pooling="mean"))
    engine.step()
    assert engine._poolings._open
    assert engine.abort(0)
    assert engine._poolings._open == {}
    collect(engine)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"prompt_ids": []}, BadRequest),
        ({"prompt_ids": [CONFIG.vocab_size]}, BadRequest),
        ({"prompt_ids": [3] * (MAX_LEN + 1)}, ContextLengthExceeded),
        ({"generated": [4]}, BadRequest),
        ({"prompt_logprobs": True}, BadRequest),
        ({"grammar": Grammar("regex", "a")}, BadRequest),
    ],
)
def test_what_can_never_be_embedded_is_refused(engine, changes, error):
    values = {"prompt": [3], "pooling": "last", **changes}
    with pytest.raises(error):
        engine.add(request(0, values.pop("prompt_ids", values.pop("prompt")), **values))
