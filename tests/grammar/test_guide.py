"""A guide allows what leads to an answer of the grammar, and nothing else."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.core import BadRequest, Grammar, Unsupported
from atomr_trio.engine.masks import mask_words
from atomr_trio.grammar.compiler import LIMITS

from .words import END, LONGER, OTHER, SIZE, TOKENS, TURN, allowed, spelled, words

ENDS = {END, TURN}


@pytest.fixture(scope="module")
def shared():
    return words()


def choice(*texts):
    return Grammar("choice", json.dumps(texts))


def test_a_mask_has_a_bit_for_each_spelling_of_what_may_come(shared):
    guide = shared.guide(choice("yes", "abc", "é"))
    mask = guide.allowed([])
    assert mask.shape == (mask_words(SIZE),)
    assert {TOKENS[id] for id in allowed(mask)} == {b"y", b"yes", b"a", b"ab", b"\xc3", "é".encode()}
    assert allowed(guide.allowed(spelled("ye"))) == {ord("s")}


def test_where_the_rule_is_complete_every_end_is_allowed_and_nothing_else(shared):
    guide = shared.guide(choice("yes", "yes!"))
    assert allowed(guide.allowed([TOKENS.index(b"yes")])) == {ord("!"), *ENDS}
    assert allowed(guide.allowed([TOKENS.index(b"yes"), ord("!")])) == ENDS


def test_control_tokens_come_where_a_grammar_names_them(shared):
    assert OTHER not in allowed(shared.guide(Grammar("regex", ".*")).allowed([]))
    assert not ENDS & allowed(shared.guide(Grammar("regex", ".+")).allowed([]))
    for name in ("<other>", f"<[{OTHER}]>"):
        guide = shared.guide(Grammar("lark", f'start: "a" {name}'))
        assert allowed(guide.allowed(spelled("a"))) == {OTHER}
        assert allowed(guide.allowed([ord("a"), OTHER])) == ENDS


def test_both_ways_to_write_a_grammar_are_read(shared):
    for text in ('start: "a" x\nx: /[0-9]/', 'root ::= "a" x\nx ::= [0-9]'):
        assert allowed(shared.guide(Grammar("lark", text)).allowed([ord("a")])) == set(map(ord, "0123456789"))


@given(text=st.text(min_size=1, max_size=6), cut=st.integers(0, 12))
def test_a_guide_can_be_asked_again_and_begin_in_the_middle(shared, text, cut):
    ids = spelled(text)
    grammar = choice(text)
    guide, later = shared.guide(grammar), shared.guide(grammar)
    for at in range(len(ids) + 1):
        mask = guide.allowed(ids[:at])
        assert (guide.allowed(ids[:at]) == mask).all()
        if at >= cut:
            assert (later.allowed(ids[:at]) == mask).all()
    guide.allowed(ids[: cut % (len(ids) + 1)])
    assert allowed(guide.allowed(ids)) == ENDS


def test_guides_of_one_grammar_do_not_know_of_each_other(shared):
    first, second = (shared.guide(choice("ab", "cd")) for _ in range(2))
    first.allowed([ord("a")])
    assert ord("c") in allowed(second.allowed([]))
    assert allowed(first.allowed(spelled("ab"))) == ENDS


def test_white_space_has_an_end(shared):
    guide = shared.guide(Grammar("json", '{"type": "object", "maxProperties": 0}'))
    text = "{\n" + " " * 40
    assert allowed(guide.allowed(spelled(text))) == {ord("}")}


@pytest.mark.parametrize(
    ("kind", "text", "why"),
    [
        ("json", '{"type": "strng"}', "strng"), ("json", '{"not": {}}', "not"), ("regex", "(a", "unclosed"),
        ("regex", r"[^\s\S]", "no answer"), ("lark", "start: nope", "nope"), ("lark", "hello", "neither"),
        ("json", '{"type": "integer", "minimum": 5, "maximum": 3}', "Unsatisfiable"),
        ("json", '{"$ref": "file:///etc/passwd"}', "not present"), ("lark", "start: <nope>", "special"),
        ("lark", 'start: "\\ud800"', "string"),
        # Refused by what comes after its first token.
        ("json", json.dumps({"type": "object", "properties": {f"p{n}": {} for n in range(600)}}), "2000"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_in_a_line(shared, kind, text, why):
    with pytest.raises(BadRequest) as caught:
        shared.guide(Grammar(kind, text))
    message = caught.value.message
    assert why in message
    assert "\n" not in message
    assert len(message) < 400


def test_an_answer_that_the_grammar_does_not_have_is_refused(shared):
    guide = shared.guide(choice("yes"))
    for _ in range(2):
        with pytest.raises(BadRequest):
            guide.allowed([ord("n")])


def test_a_limit_that_is_met_on_the_way_is_an_error_and_not_an_end(monkeypatch):
    monkeypatch.setitem(LIMITS, "max_lexer_states", 60)
    guide = words().guide(Grammar("regex", "(.*a.{9}b.*|.*c.{9}d.*)"))
    with pytest.raises(BadRequest, match="too many states"):
        for at in range(99):
            guide.allowed(spelled("acbd" * 25)[:at])


def test_without_an_end_token_there_is_no_complete_answer():
    with pytest.raises(Unsupported):
        words(end_ids=()).guide(choice("a"))
    with pytest.raises(Unsupported):
        words(end_ids=(SIZE + 5,)).guide(choice("a"))


def test_a_model_with_fewer_logits_than_tokens_says_only_what_it_has():
    guide = words(end_ids=(7,), size=260).guide(choice("ab", '":'))
    assert allowed(guide.allowed([]), 260) == {ord("a"), ord('"'), 256 + LONGER.index(b'":')}


@settings(max_examples=30)
@given(data=st.data(), pattern=st.sampled_from(["[a-c]{1,3}(x|yz)?", "é+|日本?", "([0-9]{2}-){2}a", "a?b?c?", ".{2}"]))
def test_any_way_through_the_masks_is_an_answer(shared, data, pattern):
    guide = shared.guide(Grammar("regex", pattern))
    ids = []
    while not ids or ids[-1] not in ENDS:
        ids.append(data.draw(st.sampled_from(sorted(allowed(guide.allowed(ids))))))
        if len(ids) > 40:
            return
    assert re.fullmatch(pattern, b"".join(TOKENS[id] for id in ids[:-1]).decode())
