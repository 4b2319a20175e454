"""Tools in requests: what may be called, what was called, and what is refused."""

import json

import pytest

from atomr_trio.core import BadRequest, Role, Tool, ToolCall, ToolOffer
from atomr_trio.gateway import wire

USER = {"role": "user", "content": "hi"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}


def function(name="f", **fields):
    return {"type": "function", "function": {"name": name, **fields}}


def called(name="f", arguments="{}", id="call_1"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def chat(messages=(USER,), **fields):
    body = json.dumps({"model": "m", "messages": list(messages), **fields}).encode()
    (batch,) = wire.chat_generation(wire.decode_chat(body), "chatcmpl-1").prompts
    return batch


def refused(**fields):
    with pytest.raises(BadRequest) as caught:
        chat(**fields)
    return caught.value


def test_tools_arrive():
    batch = chat(tools=[function("f", description="Does f.", parameters=SCHEMA, strict=True), function("g.h-2")])
    assert batch.tools == ToolOffer(tools=(Tool("f", "Does f.", SCHEMA, strict=True), Tool("g.h-2")))
    assert batch.tools.callable == batch.tools.tools


@pytest.mark.parametrize(
    ("choice", "required", "only"),
    [
        (None, False, ()),
        ("auto", False, ()),
        ("required", True, ()),
        (function("g"), True, ("g",)),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [function("f")]}}, False, ("f",)),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [function("f"), function("g")]}},
            True,
            ("f", "g"),
        ),
    ],
)
def test_choices(choice, required, only):
    offer = chat(tools=[function("f"), function("g"), function("h")], tool_choice=choice).tools
    assert (offer.required, offer.only) == (required, frozenset(only))
    # The model is told of all of them, so that the prompt stays the same.
    assert [tool.name for tool in offer.tools] == ["f", "g", "h"]
    assert [tool.name for tool in offer.callable] == sorted(only or "fgh")


@pytest.mark.parametrize(
    "fields", [{}, {"tools": []}, {"tools": [function()], "tool_choice": "none"}, {"tool_choice": "auto"}]
)
def test_nothing_to_call(fields):
    assert chat(**fields).tools is None


@pytest.mark.parametrize(("given", "parallel"), [(None, True), (True, True), (False, False)])
def test_parallel_calls(given, parallel):
    assert chat(tools=[function()], parallel_tool_calls=given).tools.parallel is parallel


REFUSED = [
    ({"tools": {}}, "tools"),
    ({"tools": [5]}, "tools[0]"),
    ({"tools": [{"type": "function"}]}, "tools[0].function"),
    ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type"),
    ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
    ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0]"),
    ({"tools": [function("")]}, "tools[0].function.name"),
    ({"tools": [function("a b")]}, "tools[0].function.name"),
    ({"tools": [function("f\n")]}, "tools[0].function.name"),
    ({"tools": [function("a" * 129)]}, "tools[0].function.name"),
    ({"tools": [function(), function()]}, "tools[1].function.name"),
    ({"tools": [function(parameters=[])]}, "tools[0].function.parameters"),
    ({"tools": [function(f"f{number}") for number in range(129)]}, "tools"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [], "tool_choice": "required"}, "tool_choice"),
    ({"tool_choice": function()}, "tool_choice"),
    ({"tools": [function()], "tool_choice": function("g")}, "tool_choice"),
    ({"tools": [function()], "tool_choice": "always"}, "tool_choice"),
    ({"tools": [function()], "tool_choice": {"type": "custom", "custom": {"name": "f"}}}, "tool_choice"),
    ({"tools": [function()], "tool_choice": {"type": "function"}}, "tool_choice.function"),
    (
        {
            "tools": [function()],
            "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": []}},
        },
        "tool_choice.allowed_tools.tools",
    ),
    (
        {
            "tools": [function()],
            "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [function("g")]}},
        },
        "tool_choice.allowed_tools.tools",
    ),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED)
def test_a_wrong_field_is_named(fields, param):
    error = refused(**fields)
    assert error.param == param
    assert f"`{param}`" in error.message


@pytest.mark.parametrize(("name", "instead"), [("functions", "tools"), ("function_call", "tool_choice")])
def test_what_is_deprecated_says_what_to_use(name, instead):
    error = refused(**{name: [{"name": "f"}]})
    assert (error.param, error.message) == (
        name,
        f"`{name}` is deprecated and not supported by this server: use `{instead}`",
    )
    for nothing in (None, [], "none", "auto"):
        chat(**{name: nothing})


def test_calls_and_results_arrive():
    batch = chat([
        {"role": "developer", "content": "Be brief."},
        USER,
        {
            "role": "assistant", "reasoning_content": "I need f.",
            "tool_calls": [called("f", '{"a": 1.50}'), called("g", "", id="call_2")],
        },
        {"role": "tool", "content": "4", "tool_call_id": "call_2"},
        {"role": "tool", "content": [{"type": "text", "text": "5"}], "tool_call_id": "call_1"},
        {"role": "tool", "content": "6", "tool_call_id": "call_3", "name": "h"},
        {"role": "assistant", "content": "done", "tool_calls": None},
    ])  # fmt: skip
    spoken, first, second, third, last = batch.messages[2:]
    assert batch.messages[0].role is Role.SYSTEM
    assert spoken.tool_calls == (ToolCall("call_1", "f", '{"a": 1.50}'), ToolCall("call_2", "g", "{}"))
    assert (spoken.content, spoken.reasoning) == ("", "I need f.")
    assert [(turn.tool_call_id, turn.name, turn.text) for turn in (first, second, third)] == [
        ("call_2", "g", "4"),
        ("call_1", "f", "5"),
        ("call_3", "h", "6"),
    ]
    assert last.tool_calls == ()


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": "x", "tool_calls": [called()]}, "messages[0].tool_calls"),
        ({"role": "assistant", "tool_calls": [called(arguments="{")]}, "messages[0].tool_calls[0].function.arguments"),
        (
            {"role": "assistant", "tool_calls": [called(arguments="[1]")]},
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            {"role": "assistant", "tool_calls": [called(arguments="NaN")]},
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            {"role": "assistant", "tool_calls": [called(arguments='{"a":' * 100_000)]},
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"role": "assistant", "tool_calls": [called(arguments={})]}, "messages[0].tool_calls[0].function.arguments"),
        ({"role": "assistant", "tool_calls": [called(name="a b")]}, "messages[0].tool_calls[0].function.name"),
        ({"role": "assistant", "tool_calls": [{"type": "custom", "id": "1"}]}, "messages[0].tool_calls[0]"),
        ({"role": "assistant", "content": "x", "function_call": {"name": "f"}}, "messages[0].function_call"),
        ({"role": "tool", "tool_call_id": "x"}, "messages[0].content"),
    ],
)
def test_a_wrong_message_is_named(message, param):
    error = refused(messages=[message])
    assert error.param == param
    assert f"`{param}`" in error.message
