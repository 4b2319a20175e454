"""What an answer must look like: the fields that say so, and what they come to."""

import json

import pytest

from atomr_trio.core import BadRequest, Grammar
from atomr_trio.gateway import wire

from .fakes import MODEL, ScriptedBackend, say
from .harness import serving
from .test_app import CHAT, ask, body_of
from .test_app import app_of as app
from .test_wire_requests import USER, chat, plain, refused

SCHEMA = {"type": "object", "properties": {"é": {"const": 1.5}}}
NAMED = {"type": "json_schema", "json_schema": {"name": "a-b_C", "schema": SCHEMA, "strict": True, "description": "d"}}


def response(**fields):
    request = wire.decode_response(json.dumps({"model": "m", "input": "x", **fields}).encode())
    return wire.response_generation(request, "resp_1")


def message(**fields):
    body = {"model": "m", "messages": [USER], "max_tokens": 5, **fields}
    return wire.messages_generation(wire.decode_messages(json.dumps(body).encode()), "msg_1")


TEXT = {"type": "json_schema", **NAMED["json_schema"]}
OUTPUT = {"type": "json_schema", "schema": SCHEMA}

ASKED = [
    *[row for way in (chat, plain) for row in [
        (way, {"response_format": {"type": "json_object"}}, "json", {"type": "object"}, "response_format"),
        (way, {"response_format": NAMED}, "json", SCHEMA, "response_format.json_schema.schema"),
        (way, {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "json", {"type": "object"},
         "response_format.json_schema.schema"),
    ]],
    (response, {"text": {"format": {"type": "json_object"}}}, "json", {"type": "object"}, "text.format"),
    (response, {"text": {"format": TEXT}}, "json", SCHEMA, "text.format.schema"),
    (message, {"output_config": {"format": OUTPUT}}, "json", SCHEMA, "output_config.format.schema"),
    *[(way, {"structured_outputs": {name: value}}, kind, expected, f"structured_outputs.{name}")
      for way in (chat, plain)
      for name, value, kind, expected in [
          ("json", SCHEMA, "json", SCHEMA), ("json", json.dumps(SCHEMA), "json", SCHEMA),
          ("choice", ["yes", "né"], "choice", ["yes", "né"]), ("regex", "[ab]+", "regex", "[ab]+"),
          ("grammar", 'start: "a"', "lark", 'start: "a"')]],
]  # fmt: skip


@pytest.mark.parametrize(("way", "fields", "kind", "expected", "param"), ASKED)
def test_each_field_becomes_a_grammar(way, fields, kind, expected, param):
    generation = way(**fields)
    grammar = generation.prompts[0].sampling.grammar
    assert (grammar.kind, generation.grammar_param) == (kind, param)
    assert (json.loads(grammar.text) if isinstance(expected, list | dict) else grammar.text) == expected


@pytest.mark.parametrize("value", [None, {"type": "text"}])
@pytest.mark.parametrize("way", [chat, plain])
def test_text_is_free(way, value):
    generation = way(response_format=value, structured_outputs=None)
    assert (generation.prompts[0].sampling.grammar, generation.grammar_param) == (None, None)


@pytest.mark.parametrize(
    ("way", "fields"),
    [
        *[(response, {"text": value}) for value in (None, {}, {"format": None}, {"format": {"type": "text"}})],
        *[(message, {"output_config": value}) for value in (None, {}, {"format": None}, {"effort": "low"})],
    ],
)
def test_text_is_free_in_the_other_dialects(way, fields):
    generation = way(**fields)
    assert (generation.prompts[0].sampling.grammar, generation.grammar_param) == (None, None)


@pytest.mark.parametrize(
    ("way", "tool"),
    [
        (response, {"tools": [{"type": "function", "name": "f"}], "tool_choice": "required"}),
        (message, {"tools": [{"name": "f", "input_schema": {}}], "tool_choice": {"type": "any"}}),
    ],
)
def test_a_call_that_has_to_be_made_is_a_grammar_of_the_tools(way, tool):
    assert way(**tool).grammar_param == "tools"
    assert way(**{**tool, "tool_choice": None}).grammar_param is None


@pytest.mark.parametrize("format", [{"type": "text"}, {"type": "json_object"}, TEXT])
def test_a_response_says_what_its_text_looks_like(format):
    request = wire.decode_response(json.dumps({"model": "m", "input": "x", "text": {"format": format}}).encode())
    told = json.loads(wire.to_json(wire.response_begun(request, "resp_1", 17)))
    assert told["text"] == {"format": format}


OBJECT = {"type": "json_object"}
WRONG = [
    (chat, {"response_format": {"type": "xml"}}, "response_format.type"),
    (chat, {"response_format": {}}, "response_format.type"),
    (chat, {"response_format": "json_object"}, "response_format"),
    (chat, {"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    (chat, {"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.name"),
    (chat, {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
     "response_format.json_schema.name"),
    (chat, {"response_format": {"type": "json_schema", "json_schema": {"name": "a" * 65}}},
     "response_format.json_schema.name"),
    (chat, {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": [1]}}},
     "response_format.json_schema.schema"),
    (chat, {"response_format": OBJECT, "structured_outputs": {"regex": "a"}}, "structured_outputs"),
    (chat, {"response_format": OBJECT, "ignore_eos": True}, "ignore_eos"),
    (plain, {"response_format": OBJECT, "structured_outputs": {"regex": "a"}}, "structured_outputs"),
    (response, {"text": {"format": {"type": "xml"}}}, "text.format.type"),
    (response, {"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
    (response, {"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
    (response, {"text": {"format": {"type": "json_schema", "name": "a b", "schema": {}}}}, "text.format.name"),
    (message, {"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    (message, {"output_config": {"format": {"type": "json_object"}}}, "output_config.format.type"),
    *[(way, fields, param) for way in (chat, plain) for fields, param in [
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
        ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"choice": ["a", 1]}}, "structured_outputs.choice[1]"),
        ({"structured_outputs": {"json": [1]}}, "structured_outputs.json"),
        ({"structured_outputs": {"regex": "a"}, "min_tokens": 1}, "min_tokens"),
    ]],
]  # fmt: skip


@pytest.mark.parametrize(("way", "fields", "param"), WRONG)
def test_what_asks_for_nothing_or_for_too_much_is_named(way, fields, param):
    error = refused(way, **fields)
    assert error.param == param
    assert "$." not in error.message


@pytest.mark.parametrize("stream", [False, True])
async def test_a_grammar_that_is_refused_is_told_under_the_name_of_its_field(stream):
    backend = ScriptedBackend(on_prepare=BadRequest("the grammar of the answer: no", "grammar"))
    async with serving(app(backend)) as server:
        answer = await ask(server, "POST", CHAT, body_of(response_format=NAMED, stream=stream))
        assert answer.status == 400
        error = json.loads(answer.body)["error"]
        assert (error["param"], error["type"]) == ("response_format.json_schema.schema", "invalid_request_error")
        other = {"model": MODEL, "input": "x", "text": {"format": TEXT}, "stream": stream}
        answer = await ask(server, "POST", "/v1/responses", json.dumps(other).encode())
        assert json.loads(answer.body)["error"]["param"] == "text.format.schema"


async def test_the_grammar_reaches_the_backend():
    backend = ScriptedBackend([say("{", "}")])
    async with serving(app(backend)) as server:
        fields = {"model": MODEL, "prompt": "x", "structured_outputs": {"regex": "{}"}}
        answer = await ask(server, "POST", "/v1/completions", json.dumps(fields).encode())
        assert answer.status == 200
    (batch,) = backend.submitted
    assert batch.sampling.grammar == Grammar("regex", "{}")
