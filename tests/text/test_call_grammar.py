"""The grammar of answers that have to call: it takes what is written in the form, and nothing else."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.core import Called, Grammar, Tool
from atomr_trio.text import AnswerParser
from atomr_trio.text.calls import FORMS, answer_rule, call_grammar

llguidance = pytest.importorskip("llguidance")

CITY = {"type": "object", "properties": {"city": {"$ref": "#/$defs/city"}}, "required": ["city"],
        "additionalProperties": False, "$defs": {"city": {"enum": ["Bonn", 'a "b"']}}}  # fmt: skip
TOOLS = (
    Tool("get_weather", "Tell the weather.", CITY),
    Tool("now"),
    Tool("f.g-h", parameters={"properties": {"n": {"type": "integer"}}}),
)
THINK = ("<think>", "</think>")

good = st.lists(
    st.sampled_from(["Bonn", 'a "b"']).map(lambda city: Called("get_weather", json.dumps({"city": city})))
    | st.just(Called("now", "{}"))
    | st.integers(-9, 9).map(lambda n: Called("f.g-h", json.dumps({"n": n}))),
    min_size=1,
    max_size=3,
)


@pytest.fixture(scope="module")
def takes():
    tokens = llguidance.LLTokenizer("byte")

    def check(grammar, text):
        matcher = llguidance.LLMatcher(tokens, llguidance.LLMatcher.grammar_from_lark(grammar.text))
        assert not matcher.is_error(), matcher.get_error()
        ids = list(text) if isinstance(text, bytes) else list(text.encode())
        return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()

    return check


@pytest.mark.parametrize("form", sorted(FORMS))
@settings(max_examples=20)
@given(calls=good)
def test_calls_that_are_offered_are_taken(takes, form, calls):
    layout = FORMS[form].layout
    text = layout.render(calls)
    assert takes(call_grammar(layout, TOOLS), text)
    assert takes(call_grammar(layout, TOOLS, parallel=False), text) == (len(calls) == 1)
    assert takes(call_grammar(layout, TOOLS[:2]), text) == all(call.name != "f.g-h" for call in calls)


@pytest.mark.parametrize("form", sorted(FORMS))
@pytest.mark.parametrize(
    "call",
    [
        Called("get_weather", '{"city": "Paris"}'),
        Called("get_weather", "{}"),
        Called("now", '{"a": 1}'),
        Called("nobody", "{}"),
        Called("now", "[]"),
        Called("f.g-h", '{"n": "1"}'),
        Called("now", '{"'),
    ],
)
def test_other_calls_are_not(takes, form, call):
    layout = FORMS[form].layout
    assert not takes(call_grammar(layout, TOOLS), layout.render([call]))


@pytest.mark.parametrize("form", sorted(FORMS))
def test_neither_is_text(takes, form):
    layout = FORMS[form].layout
    call = layout.render([Called("now", "{}")])
    for text in ["", "Hello", " " + call, call + " and more"]:
        assert not takes(call_grammar(layout, TOOLS), text)


@pytest.mark.parametrize("form", sorted(FORMS))
def test_thoughts_may_come_first(takes, form):
    layout = FORMS[form].layout
    call = layout.render([Called("now", "{}")])
    may_think = call_grammar(layout, TOOLS, thoughts=THINK)
    assert takes(may_think, call)
    assert takes(may_think, "<think>\nso\n</think>\n\n" + call)
    assert not takes(may_think, "so</think>" + call)
    thinks = call_grammar(layout, TOOLS, thoughts=THINK, thinking=True)
    assert takes(thinks, "so <b>\n</think>\n\n" + call)
    assert not takes(thinks, call)
    assert not takes(thinks, f"so</think>{call}</think>{call}")


def test_marks_that_are_control_tokens_are_told_by_their_ids(takes):
    layout = FORMS["mistral-args"].layout
    grammar = call_grammar(layout, TOOLS, control={"[TOOL_CALLS]": 7, "[ARGS]": 8, "<think>": 9}, thoughts=THINK)
    assert takes(grammar, b"\x07now\x08{}\x07now\x08{}")
    assert takes(grammar, b"\x09so</think>\x07now\x08{}")
    assert not takes(grammar, layout.render([Called("now", "{}")]))
    closes = call_grammar(
        layout, TOOLS, control={"[TOOL_CALLS]": 7, "[ARGS]": 8, "</think>": 9}, thoughts=THINK, thinking=True
    )
    assert takes(closes, b"so\x09\x07now\x08{}")


@pytest.mark.parametrize("form", sorted(FORMS))
def test_what_the_grammar_takes_is_read(form):
    """The parser's side of the same promise."""
    layout = FORMS[form].layout
    reader = AnswerParser(FORMS[form], {tool.name: () for tool in TOOLS})
    calls = [Called("now", "{}"), Called("get_weather", '{"city": "Bonn"}')]
    assert [*reader.push(layout.render(calls)), *reader.finish()] == calls


def test_it_is_a_value_of_the_contract():
    grammar = call_grammar(FORMS["hermes"].layout, TOOLS[1:2])
    assert grammar == Grammar("lark", grammar.text)
    assert hash(grammar) == hash(Grammar("lark", grammar.text))


@pytest.mark.parametrize(
    ("own", "good", "bad"),
    [
        (Grammar("json", json.dumps(CITY)), ['{"city": "Bonn"}'], ['{"city": 1}', '{"city":  "Bonn"}', ""]),
        (Grammar("json", '{"type": "string"}'), ['"<think>"', '""'], ["a", "{}"]),
        (Grammar("choice", '["a", "b \\"", "ü\\n"]'), ["a", 'b "', "ü\n"], ["b", "ab"]),
        (Grammar("regex", r"a/b\/\\/c|x\ny|\d+"), ["a/b/\\/c", "x\ny", "42"], ["a", "a/b/", "xny"]),
        (Grammar("regex", "x\ny"), ["x\ny"], ["xny"]),
    ],
)
def test_what_the_client_wants_may_come_instead(takes, own, good, bad):
    layout = FORMS["hermes"].layout
    call = layout.render([Called("now", "{}")])
    grammar = call_grammar(layout, TOOLS, answer=answer_rule(own), thoughts=THINK)
    alone = call_grammar(None, (), answer=answer_rule(own), thoughts=THINK, thinking=True)
    assert takes(grammar, call)
    for text in good:
        assert takes(grammar, text)
        assert takes(grammar, "<think>so</think>\n\n" + text)
        assert takes(alone, "so</think>\n\n" + text)
    for text in bad:
        assert not takes(grammar, text)
        assert not takes(alone, "so</think>" + text)
    assert not takes(alone, call)


@pytest.mark.parametrize(
    "own",
    [
        Grammar("lark", 'start: "a"'), Grammar("json", "{"), Grammar("json", "[1]"), Grammar("json", "5"),
        Grammar("choice", "5"), Grammar("choice", "{"), Grammar("json", '{"a":' * 100_000),
    ],
    ids=lambda own: own.text[:20],
)  # fmt: skip
def test_what_cannot_stand_beside_others(own):
    assert answer_rule(own) is None
