"""The engine with what `dtype = auto` chooses on a CPU: answers do not depend on company, restarts or measurements."""

import json

import jax
import pytest
from engine_kit import Reference, alone, collect, request, tiny_settings, vector

from atomr_trio.engine import linear_tuning
from atomr_trio.engine.engine import Engine
from atomr_trio.engine.linear_choices import choices_file

pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere auto is bfloat16")

PROMPTS = [[13] * 9, [7]]


def requests(count=8):
    return [request(number, prompt, count) for number, prompt in enumerate(PROMPTS)]


def load(programs_dir):
    engine = Engine(tiny_settings(programs_dir, dtype="auto", max_num_seqs=2))
    return engine, engine.load()


@pytest.fixture(scope="module")
def loaded(programs_dir):
    engine, ready = load(programs_dir)
    yield engine, ready
    engine.close()


def test_ready_says_what_auto_chose(loaded):
    assert loaded[1].dtype == "int8"


def test_answers_are_the_same_alone_and_together(loaded):
    engine, _ = loaded
    expected = {one.id: alone(engine, one) for one in requests()}
    for one in requests():
        engine.add(one)
    assert collect(engine)[0] == expected


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_embeddings_are_close_to_those_of_floats(loaded, pooling):
    engine, _ = loaded
    prompt = [3 + 7 * n % 50 for n in range(30)]
    engine.add(request(9, prompt, pooling=pooling))
    assert vector(collect(engine)[1][9]) @ Reference().embedding(prompt, pooling) > 0.99


def test_the_next_life_measures_nothing_and_goes_on_with_the_same_numbers(loaded, programs_dir, monkeypatch):
    engine, _ = loaded
    whole = [alone(engine, one) for one in requests()]
    assert json.loads(choices_file(programs_dir).read_bytes())["forms"]
    # Were it to measure again, it would fail.
    monkeypatch.delattr(linear_tuning, "tune_shape")
    other, _ = load(programs_dir)
    for number, prompt in enumerate(PROMPTS):
        resumed = request(number, prompt, 8, generated=whole[number][:3])
        assert alone(other, resumed) == whole[number][3:]
    other.close()
