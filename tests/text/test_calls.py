"""Calls in a model's text: found whatever its portions, and what is none stays as it was written."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atomr_trio.core import Called, Said, Thought
from atomr_trio.text import AnswerParser
from atomr_trio.text.calls import FORMS

NAMES = ("get_weather", "f", "f2", "a.b-c_d")
OFFERED = {"get_weather": ("city", "unit"), "f": (), "f2": ("x",), "a.b-c_d": ("y", "z")}
THINK = ("<think>", "</think>")
FORM = st.sampled_from(sorted(FORMS))

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
marks = st.sampled_from(
    ["</tool_call>", "<tool_call>", "```", "```json", "[TOOL_CALLS]", "[ARGS]", '"', "\\", "{", "}]"]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts | marks,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | marks, inner, max_size=3),
    max_leaves=6,
)
written = st.builds(
    json.dumps,
    st.dictionaries(texts | marks, values, max_size=3),
    ensure_ascii=st.booleans(),
    indent=st.sampled_from([None, 2]),
)
calls = st.lists(st.builds(Called, st.sampled_from(NAMES), written), min_size=1, max_size=3)

fragments = st.sampled_from([
    "<tool_call>", "</tool_call>", "<tool_call", "_call>", "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]",
    "```", "```json\n", "```tool_code\n", "```tool_call\n", "<think>", "</think>", "<think",
    "\n", " ", ";", "[", "]", "{", "}", '"', "\\", ":", ",", "'", "é", "so", "1", "null", "name",
    '"name"', '"arguments"',
    "f", "f(", ")", 'x="', "print(f())", "f2(3)", '"<tool_call>"', '{"name": "f", "arguments": {"a": ',
    '{"name": "f", "arguments": {}}', '{"name": "nobody", "arguments": {}}', '{"name": "f2", "parameters": {"x": 1}}',
])  # fmt: skip
noise = st.lists(fragments | texts, max_size=12).map("".join)


def parser(form=None, **fields):
    return AnswerParser(FORMS.get(form), OFFERED, **fields)


def merged(pieces):
    """Neighbours of one kind together: in how many pieces a text comes is a matter of time."""
    whole = []
    for piece in pieces:
        if whole and type(piece) is type(whole[-1]) and not isinstance(piece, Called):
            whole[-1] = type(piece)(whole[-1].text + piece.text)
        else:
            whole.append(piece)
    return whole


def read(reader, *portions):
    pieces = [piece for portion in portions for piece in reader.push(portion)]
    return merged([*pieces, *reader.finish()])


def cut(text, cuts):
    edges = sorted(at % (len(text) + 1) for at in cuts)
    return [text[begin:end] for begin, end in zip([0, *edges], [*edges, len(text)], strict=True)]


READERS = st.tuples(
    FORM | st.none(),
    st.fixed_dictionaries(
        {"parallel": st.booleans(), "thoughts": st.sampled_from([None, THINK]), "thinking": st.booleans()}
    ),
)


@given(how=READERS, text=noise, cuts=st.lists(st.integers(0, 200), max_size=8))
@example(how=("hermes", {}), text='<tool_call>{"name": "f"}</tool_call>', cuts=[*range(40)])
@example(how=("llama3", {}), text='{"name": "f"}; {"name": "f2"}', cuts=[*range(40)])
@example(how=("gemma", {}), text='```tool_code\nprint(f2("```"))\n```', cuts=[*range(40)])
def test_portions_change_nothing(how, text, cuts):
    form, fields = how
    whole = read(parser(form, **fields), text)
    assert read(parser(form, **fields), *cut(text, cuts)) == whole
    assert read(parser(form, **fields), *text) == whole


@given(how=READERS, text=noise, cuts=st.lists(st.integers(0, 200), max_size=8))
def test_what_was_told_is_never_taken_back(how, text, cuts):
    """Every reader of the begin of a text has been told a begin of what it is told in the end."""
    form, fields = how
    whole = read(parser(form, **fields), text)
    reader, told = parser(form, **fields), []
    for portion in cut(text, cuts):
        told = merged([*told, *reader.push(portion)])
        for piece, final in zip(told, whole, strict=False):
            assert piece == final or (piece is told[-1] and final.text.startswith(piece.text))


@given(form=FORM, calls=calls, cuts=st.lists(st.integers(0, 500), max_size=4))
def test_calls_that_are_written_are_read(form, calls, cuts):
    text = FORMS[form].layout.render(calls)
    assert read(parser(form), *cut(text, cuts)) == calls
    assert read(parser(form), *cut(text + "\n", cuts)) == calls
    only_one = read(parser(form, parallel=False), text)
    assert only_one == calls[:1]


@given(
    form=st.sampled_from(["hermes", "mistral", "mistral-args", "smollm", "gemma"]),
    calls=calls,
    before=texts,
    cuts=st.lists(st.integers(0, 99)),
)
def test_text_before_calls_stays_without_the_space_between(form, calls, before, cuts):
    before = "I " + before
    text = before + "\n" + FORMS[form].layout.render(calls)
    assert read(parser(form), *cut(text, cuts)) == [Said(before.rstrip(" \t\r\n")), *calls]


@given(form=FORM | st.none(), text=texts | noise, cuts=st.lists(st.integers(0, 99), max_size=5))
def test_without_a_call_the_text_is_what_it_was(form, text, cuts):
    pieces = read(AnswerParser(FORMS.get(form), {}), *cut(text, cuts))
    assert "".join(piece.text for piece in pieces) == text
    assert all(isinstance(piece, Said) for piece in pieces)


@given(form=FORM | st.none(), text=texts)
def test_plain_text_is_not_held_back(form, text):
    text = "x" + text.replace("<", "").replace("[", "").replace("`", "").rstrip(" \t\r\n")
    pieces = parser(form).push(text)
    assert merged(pieces) == [Said(text)]


@pytest.mark.parametrize(
    "arguments", ['{"a": 1.50}', '{"a": 12345678901234567890123}', '{"a": "\\u00e9"}', '{ "a" : [ 1e5 ] }']
)
def test_arguments_stay_as_the_model_wrote_them(arguments):
    assert read(parser("hermes"), f'<tool_call>{{"name": "f", "arguments": {arguments}}}</tool_call>') == [
        Called("f", arguments)
    ]


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{"name": "f"}', "{}"),
        ('{"name": "f", "arguments": null}', "{}"),
        ('{"name": "f", "arguments": ""}', "{}"),
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', '{"a": 1}'),
        ('{"name": "f", "parameters": {"a": 1}}', '{"a": 1}'),
        ('{"function": "f", "arguments": {"a": 1}}', '{"a": 1}'),
        ('{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}', '{"a": 1}'),
        ('{"id": "1", "arguments": {"name": "x"}, "name": "f"}', '{"name": "x"}'),
        ('[{"name": "f"}]', "{}"),
    ],
)
def test_ways_to_write_an_object(text, arguments):
    assert read(parser("hermes"), f"<tool_call>{text}</tool_call>") == [Called("f", arguments)]


NO_CALLS = [
    "<tool_call>",
    "<tool_call>f()</tool_call>",
    '<tool_call>{"name": "f", "arguments": {}',
    '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
    '<tool_call>{"name": "f", "arguments": "x"}</tool_call>',
    '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>',
    '<tool_call>{"name": "f", "arguments": {"a": 01}}</tool_call>',
    '<tool_call>{"name": "f", "arguments": {"a": "\n"}}</tool_call>',
    '<tool_call>{"name": "f", "arguments": {"a": 1]}</tool_call>',
    '<tool_call>{"name": 5}</tool_call>',
    '<tool_call>{"name": "nobody", "arguments": {}}</tool_call>',
    '<tool_call>[{"name": "f"}, {"name": "nobody"}]</tool_call>',
    "<tool_call>[]</tool_call>",
    "<tool_call>{}</tool_call>",
    '<tool_call>{"a": ' + "[" * 100_000 + "]" * 100_000 + "}</tool_call>",
    '<tool_call>{"name": ' + "[" * 100_000 + "]" * 100_000 + "}</tool_call>",
]


@pytest.mark.parametrize("text", NO_CALLS, ids=lambda text: text[:60])
def test_what_is_no_call_is_told_as_it_was_written(text):
    assert read(parser("hermes"), "a " + text + " b") == [Said("a " + text + " b")]


def test_after_a_broken_call_the_next_one_is_found():
    text = '<tool_call>{"name": "f", "arguments": {</tool_call>\n<tool_call>{"name": "f2"}</tool_call> done '
    assert read(parser("hermes"), text) == [
        Said('<tool_call>{"name": "f", "arguments": {</tool_call>'),
        Called("f2", "{}"),
        Said(" done"),
    ]


def test_a_call_that_lacks_its_end_is_one():
    assert read(parser("hermes"), '<tool_call>{"name": "f"}') == [Called("f", "{}")]
    assert read(parser("hermes"), '<tool_call>{"name": "f"}<tool_call>{"name": "f2"}') == [
        Called("f", "{}"),
        Called("f2", "{}"),
    ]


def test_a_call_is_told_when_it_is_complete_and_not_before():
    reader = parser("hermes")
    assert reader.push('Well <tool_call>\n{"name": "f", "arguments": {"a": "}"') == [Said("Well")]
    assert reader.push("}") == []
    assert reader.push("}") == [Called("f", '{"a": "}"}')]
    assert reader.push("\n</tool_call>") == []
    assert reader.finish() == []


def test_json_that_is_no_call_is_known_by_its_first_key():
    reader = parser("llama3")
    assert reader.push('{"temp') == []
    assert reader.push('erature": 5, ') == [Said('{"temperature": 5,')]
    assert read(reader, '"name": 1}') == [Said(' "name": 1}')]


@pytest.mark.parametrize(
    "text", ['<|python_tag|>{"name": "f", "parameters": {}}', '{"name": "f"}', ' [{"name": "f"}]\n']
)
def test_llama(text):
    assert read(parser("llama3"), text) == [Called("f", "{}")]


def test_llama_code_is_text():
    assert read(parser("llama3"), "<|python_tag|>print(1)") == [Said("<|python_tag|>print(1)")]
    assert read(parser("llama3"), 'It is {"name": "f"}') == [Said('It is {"name": "f"}')]


@pytest.mark.parametrize(
    "text",
    [
        '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}, "id": "abcdefghi"}]',
        '[TOOL_CALLS]f[ARGS]{"a": 1}',
        '[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{"a": 1}',
        '[TOOL_CALLS]f{"a": 1}',
    ],
)
@pytest.mark.parametrize("form", ["mistral", "mistral-args"])
def test_mistral(form, text):
    assert read(parser(form), text) == [Called("f", '{"a": 1}')]


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ('get_weather(city="Bonn", unit=None)', [Called("get_weather", '{"city": "Bonn", "unit": null}')]),
        ('get_weather("Bonn", unit="°C")', [Called("get_weather", '{"city": "Bonn", "unit": "°C"}')]),
        ('print(get_weather("Bonn"))', [Called("get_weather", '{"city": "Bonn"}')]),
        ("weather = get_weather('a, b')\nf()", [Called("get_weather", '{"city": "a, b"}'), Called("f", "{}")]),
        ("[f(), f2(x=[1, (2, -3.5)])]", [Called("f", "{}"), Called("f2", '{"x": [1, [2, -3.5]]}')]),
        ('{"name": "f", "parameters": {"a": true}}', [Called("f", '{"a": true}')]),
    ],
)
def test_gemma(code, found):
    assert read(parser("gemma"), f"```tool_code\n{code}\n```") == found
    assert read(parser("gemma"), f"Let me see.\n```tool_code\n{code}\n```\nWait.") == [
        Said("Let me see."),
        *found,
        Said("\nWait."),
    ]


@pytest.mark.parametrize(
    "code",
    [
        "import os", "f(os)", "f(g())", "f(*a)", "f(**{})", "f2(1, 2)", "f2(1, x=2)", "nobody()", "f(a=b'1')",
        "f(a={1, 2})", "f(a=1e999)", "f(a=", "f", "", "f(a=\0)", "(" * 5000, "f(a=" + "-" * 70_000 + "1)",
        "f(a=" + "[" * 300 + ")",
    ],
    ids=lambda code: code[:20],
)  # fmt: skip
def test_gemma_code_that_calls_nothing_offered(code):
    text = f"```tool_code\n{code}\n```"
    assert read(parser("gemma"), text) == [Said(text)]


def test_an_ordinary_block_of_json_is_text():
    text = '```json\n{"a": 1}\n```\n```python\nf()\n```'
    assert read(parser("gemma"), text) == [Said(text)]


@given(thought=texts, said=texts, thinking=st.booleans(), cuts=st.lists(st.integers(0, 60), max_size=5))
def test_thoughts(thought, said, thinking, cuts):
    text = f"{'' if thinking else '<think>'}\n{thought}\n</think>\n\n{said}"
    pieces = read(parser(thoughts=THINK, thinking=thinking), *cut(text, cuts))
    wanted = [Thought(thought.strip(" \t\r\n")), Said(said.lstrip(" \t\r\n"))]
    assert pieces == [piece for piece in wanted if piece.text]


def test_thoughts_only_come_first():
    assert read(parser(thoughts=THINK), "a <think>b</think>") == [Said("a <think>b</think>")]
    assert read(parser(thoughts=THINK), "<think>a <think>b</think> c</think>") == [
        Thought("a <think>b"),
        Said("c</think>"),
    ]
    assert read(parser(thoughts=THINK), " <thinking>") == [Said(" <thinking>")]


def test_thoughts_that_do_not_end():
    assert read(parser(thoughts=THINK, thinking=True), "\nso </thin") == [Thought("so </thin")]
    assert read(parser(thoughts=THINK), "<think>\n\n</think>\n\n") == []
    assert read(parser(thoughts=THINK, thinking=True), "<think>so</think>") == [Thought("so")]


def test_a_call_in_thoughts_is_a_thought():
    call = '<tool_call>{"name": "f"}</tool_call>'
    assert read(parser("hermes", thoughts=THINK), f"<think>{call}</think>{call}") == [Thought(call), Called("f", "{}")]


@pytest.mark.parametrize("form", sorted(FORMS))
def test_many_calls_are_no_burden(form):
    many = [Called("f", '{"a": ' + "[" * 20 + "]" * 20 + "}")] * 3000
    assert read(parser(form), FORMS[form].layout.render(many)) == many


def test_a_long_call_costs_no_more_than_its_length():
    # Quadratic would be 10^10 steps here.
    arguments = json.dumps({"a": "<tool_call>" * 50_000})
    text = FORMS["hermes"].layout.render([Called("f", arguments)])
    assert read(parser("hermes"), *(text[at : at + 5] for at in range(0, len(text), 5))) == [Called("f", arguments)]


def test_after_the_end_nothing_comes():
    reader = parser("hermes")
    reader.push("a")
    assert reader.finish() == []
    assert reader.finish() == []
