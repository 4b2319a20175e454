"""Structured output through the whole engine: whatever a model says, an answer that has ended is one of its grammar."""

import json
import re

import jsonschema
import pytest
from engine_kit import collect
from hypothesis import event, given, settings
from hypothesis import strategies as st
from structured_kit import END, TOKENS, TURN, VOCAB, json_grammar, schemas, spelling_settings, text_of, wanted

from atomr_trio.core import BadRequest, FinishReason, Grammar
from atomr_trio.engine.engine import Engine
from atomr_trio.grammar.guide import Words


@pytest.fixture(scope="module")
def shared(tmp_path_factory, programs_dir):
    engine = Engine(spelling_settings(tmp_path_factory.mktemp("model"), programs_dir))
    engine.load()
    yield engine
    engine.close()


@pytest.fixture
def engine(shared):
    yield shared
    assert shared.idle


@pytest.fixture(scope="module")
def words():
    return Words(VOCAB, TOKENS, [END, TURN], [END, TURN])


def answers(engine, words, requests):
    """Run requests together; return each answer's tokens and its finish reason."""
    for asked in requests:
        engine.add(asked, None if asked.grammar is None else words.guide(asked.grammar))
    tokens, last = collect(engine)
    assert all(last[asked.id].finish_reason is not None for asked in requests), "none has failed"
    return {asked.id: (tokens[asked.id], last[asked.id].finish_reason) for asked in requests}


@settings(max_examples=25)
@given(wishes=st.lists(schemas, min_size=4, max_size=6), seed=st.integers(0, 2**32))
def test_every_answer_that_ends_validates_against_its_schema(shared, words, wishes, seed):
    requests = [wanted(number, json_grammar(schema), seed=seed + number) for number, schema in enumerate(wishes)]
    for number, (tokens, reason) in answers(shared, words, requests).items():
        event(str(reason))
        if reason is FinishReason.STOP:
            value = json.loads(text_of(tokens))
            jsonschema.Draft202012Validator(
                wishes[number], format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
            ).validate(value)


def test_most_small_answers_end(engine, words):
    schema = {
        "type": "object",
        "properties": {"a": {"type": "boolean"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    made = answers(engine, words, [wanted(number, json_grammar(schema)) for number in range(8)])
    assert {reason for _, reason in made.values()} == {FinishReason.STOP}
    assert {json.loads(text_of(tokens))["a"] for tokens, _ in made.values()} == {True, False}


_patterns = st.recursive(
    st.sampled_from(["a", "é", "[0-9]", "[^a-z]", "xy", r"\{"]),
    lambda inner: (
        st.tuples(inner, inner).map("".join)
        | st.tuples(inner, inner).map(lambda both: f"({both[0]}|{both[1]})")
        | st.tuples(inner, st.sampled_from(["?", "{2}", "{1,3}", "*"])).map(lambda it: f"({it[0]}){it[1]}")
    ),
    max_leaves=6,
)


@settings(max_examples=40)
@given(pattern=_patterns, seed=st.integers(0, 2**32))
def test_every_answer_that_ends_matches_its_expression(shared, words, pattern, seed):
    asked = wanted(0, Grammar("regex", pattern), seed=seed)
    tokens, reason = answers(shared, words, [asked])[0]
    event(str(reason))
    if reason is FinishReason.STOP:
        assert re.fullmatch(pattern, text_of(tokens))


@settings(max_examples=40)
@given(choices=st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5), seed=st.integers(0, 2**32))
def test_every_answer_is_one_of_the_choices(shared, words, choices, seed):
    tokens, reason = answers(shared, words, [wanted(0, Grammar("choice", json.dumps(choices)), seed=seed)])[0]
    assert reason is FinishReason.STOP
    assert text_of(tokens) in choices


@settings(max_examples=30)
@given(schema=schemas, cut=st.floats(0, 1), seed=st.integers(0, 2**32))
def test_an_answer_goes_on_where_an_earlier_process_left_it(shared, words, schema, cut, seed):
    whole, reason = answers(shared, words, [wanted(0, json_grammar(schema), 60, seed=seed)])[0]
    told = whole[: int(cut * (len(whole) - 1))]
    rest = answers(shared, words, [wanted(1, json_grammar(schema), 60, seed=seed, generated=told)])[1]
    assert (told + rest[0], rest[1]) == (whole, reason)


def test_who_is_guided_and_who_is_not_share_steps_and_do_not_mind(engine, words):
    free = [wanted(number, None, 20) for number in (0, 1)]
    guided = wanted(2, json_grammar({"type": "array", "items": {"enum": [1, 2]}, "minItems": 3}), 40)
    alone = {asked.id: answers(engine, words, [asked])[asked.id] for asked in [*free, guided]}
    assert answers(engine, words, [free[0], guided, free[1]]) == alone


def test_length_cuts_an_answer(engine, words):
    tokens, reason = answers(engine, words, [wanted(0, Grammar("regex", "(ab){50}"), 7)])[0]
    assert (len(tokens), reason) == (7, FinishReason.LENGTH)
    assert b"".join(TOKENS[id] for id in tokens) == (b"ab" * 7)[: sum(len(TOKENS[id]) for id in tokens)]


def test_an_answer_that_gets_too_complex_fails_alone_and_says_so(engine, words):
    guide = words.guide(Grammar("regex", "a+"))
    engine.add(wanted(0, Grammar("regex", "b+"), 9, generated=[ord("b")]), guide)
    engine.add(wanted(1, None, 5))
    failed, told = [], []
    while not engine.idle:
        result = engine.step()
        failed += result.failed
        told += [output.id for output in result.outputs]
    ((number, error),) = failed
    assert (number, type(error)) == (0, BadRequest)
    assert set(told) == {1}


def test_a_grammar_without_a_guide_is_refused(engine):
    with pytest.raises(BadRequest):
        engine.add(wanted(0, Grammar("regex", "a")))
