"""Grammars into rules: what a kind's text must be, and how long."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import BadRequest, Grammar
from atomr_trio.grammar import Rule, rule_of
from atomr_trio.grammar.rules import MAX_BYTES, MAX_CHOICES


def test_each_kind_has_its_rule():
    assert rule_of(Grammar("regex", "a|b")) == Rule("a|b", "regex")
    assert rule_of(Grammar("lark", 'start: "a"')) == Rule('start: "a"', "any")
    assert rule_of(Grammar("choice", '["a", "\\"é\\n"]')) == Rule(r'start: "a" | "\"\u00e9\n"')


def test_a_schema_keeps_its_order_and_what_it_says_of_white_space():
    plain = rule_of(Grammar("json", '{"b": 1, "a": 2}'))
    assert plain.text.startswith('start: %json {"b": 1, "a": 2, "x-guidance": {"whitespace_pattern": "')
    own = rule_of(Grammar("json", '{"x-guidance": {"whitespace_flexible": false, "whitespace_pattern": "x"}}'))
    assert json.loads(own.text.removeprefix("start: %json ")) == {
        "x-guidance": {"whitespace_flexible": False, "whitespace_pattern": "x"}
    }


WRONG = [
    ("json", "{"), ("json", "[1]"), ("json", "true"), ("json", "null"), ("json", '{"x-guidance": 1}'),
    ("json", "[" * 20_000), ("choice", "[]"), ("choice", "{}"), ("choice", '["a", 1]'), ("choice", '[""]'),
    ("choice", '["\\ud800"]'), ("choice", json.dumps(["a"] * (MAX_CHOICES + 1))), ("regex", "\ud800"),
    ("regex", "a" * (MAX_BYTES + 1)), ("lark", "é" * (MAX_BYTES // 2 + 1)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text"), WRONG)
def test_what_is_not_of_its_kind_is_refused(kind, text):
    with pytest.raises(BadRequest) as caught:
        rule_of(Grammar(kind, text))
    assert caught.value.param == "grammar"
    assert len(caught.value.message) < 200


@given(kind=st.sampled_from(["json", "regex", "choice", "lark"]), text=st.text(st.characters()))
def test_any_text_is_a_rule_or_a_bad_request(kind, text):
    try:
        assert isinstance(rule_of(Grammar(kind, text)), Rule)
    except BadRequest as error:
        assert error.param == "grammar"
