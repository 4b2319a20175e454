"""``/v1/messages``: requests, the order of events, and errors."""

import json
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atomr_trio import core
from atomr_trio.core import BadRequest, FinishReason, Message, Role, TokenUsage
from atomr_trio.gateway import wire
from atomr_trio.gateway.dialects import is_messages_api, translated
from atomr_trio.gateway.errors import error_reply
from atomr_trio.gateway.wire import MessagesShape

from .streams import (
    FAILURE,
    MARKED,
    answer_of,
    chunks,
    lasts,
    marked,
    marked_last,
    named_events,
    said_of,
    streamed,
    text_of,
)

PROMPT, USAGE = TokenUsage(9), TokenUsage(9, 4, 1, 2)


def shape():
    return MessagesShape("msg_1", "m")


@given(pieces=chunks, last=lasts)
def test_a_stream_is_one_message_of_blocks_without_gaps(pieces, last):
    answer = [*pieces, last]
    events = streamed(shape(), PROMPT, answer, USAGE)
    begin, *blocks, delta, stop = events
    assert begin["message"] == {
        "type": "message", "id": "msg_1", "role": "assistant", "model": "m", "content": [], "stop_reason": None,
        "stop_sequence": None, "usage": {
            "input_tokens": 9, "output_tokens": 0, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0,
        },
    }  # fmt: skip
    content = read_blocks(blocks)
    assert "".join(text for _, text in content) == text_of(answer)
    whole = json.loads(shape().whole([answer_of(answer)], USAGE))
    assert [(block["type"], block["text"]) for block in whole["content"]] == content
    assert delta["delta"] == {name: whole[name] for name in ("stop_reason", "stop_sequence")}
    assert delta["usage"] == whole["usage"]
    assert stop == {"type": "message_stop"}
    assert {event["type"] for event in (begin, delta)} == {"message_start", "message_delta"}


FIELDS = {
    "text": ("text", "text_delta", "text"),
    "thinking": ("thinking", "thinking_delta", "thinking"),
    "tool_use": ("input", "input_json_delta", "partial_json"),
}


def read_blocks(events):
    """The kind and text of each block; each begins empty, grows and ends before the next begins."""
    found = []
    while events:
        start = events.pop(0)
        assert (start["type"], start["index"]) == ("content_block_start", len(found))
        kind = start["content_block"]["type"]
        field, delta, of_delta = FIELDS[kind]
        assert not start["content_block"][field]
        text = ""
        while (event := events.pop(0))["type"] == "content_block_delta":
            assert (event["index"], event["delta"]["type"]) == (len(found), delta)
            assert event["delta"][of_delta]
            text += event["delta"][of_delta]
        assert event == {"type": "content_block_stop", "index": len(found)}
        found.append((kind, text))
    return found


def read_as(form):
    made = shape()
    made.read_as(form)
    return made


@given(pieces=marked, last=marked_last)
@example(pieces=[], last=core.TokenChunk(text_delta="a!", finish_reason=FinishReason.STOP))
@example(pieces=[], last=core.TokenChunk(text_delta="!A!!a", finish_reason=FinishReason.STOP))
def test_reasoning_and_calls_are_blocks_in_their_order(pieces, last):
    answer = [*pieces, last]
    _, *blocks, delta, _ = streamed(read_as(MARKED), PROMPT, answer, USAGE)
    starts = [event["content_block"] for event in blocks if event["type"] == "content_block_start"]
    content = read_blocks(blocks)
    kinds = {"said": "text", "thought": "thinking"}
    assert content == [
        ("tool_use", '{"a": 1}') if kind == "call" else (kinds[kind], text) for kind, text in said_of(answer)
    ]
    whole = json.loads(read_as(MARKED).whole([answer_of(answer)], USAGE))
    told = [(block["type"], block[FIELDS[block["type"]][0]]) for block in whole["content"]]
    assert told == [(kind, json.loads(text) if kind == "tool_use" else text) for kind, text in content]
    ids = [block["id"] for block in whole["content"] if block["type"] == "tool_use"]
    assert ids == [start["id"] for start in starts if start["type"] == "tool_use"]
    assert len(set(ids)) == len(ids)
    assert delta["delta"]["stop_reason"] == whole["stop_reason"]
    if last.finish_reason is FinishReason.STOP:
        assert whole["stop_reason"] == ("tool_use" if ids else "end_turn")


def test_the_calls_that_a_runner_makes_itself_are_blocks_too():
    fragments = [
        {"index": 0, "id": "x", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 1, "function": {"name": "g"}},
        {"index": 0, "function": {"arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ": 1}"}},
    ]
    answer = [core.TokenChunk(text_delta="x"), *(core.TokenChunk(tool_call_delta=each) for each in fragments)]
    answer.append(core.TokenChunk(finish_reason=FinishReason.STOP))
    _, *blocks, delta, _ = streamed(shape(), PROMPT, answer, USAGE)
    assert read_blocks(blocks) == [("text", "x"), ("tool_use", '{"a": 1}'), ("tool_use", "{}")]
    assert delta["delta"]["stop_reason"] == "tool_use"
    whole = json.loads(shape().whole([answer_of(answer)], USAGE))
    assert [(block["name"], block["input"]) for block in whole["content"][1:]] == [("f", {"a": 1}), ("g", {})]


@given(pieces=chunks)
def test_a_stream_that_fails_ends_with_one_error(pieces):
    events = streamed(shape(), PROMPT, pieces, USAGE)
    assert [event["type"] for event in events].count("error") == 1
    assert not {"message_delta", "message_stop"} & {event["type"] for event in events}
    assert events[-1] == {
        "type": "error", "error": {"type": "overloaded_error", "message": "full"}, "request_id": "req-1",
    }  # fmt: skip


REASONS = [
    (FinishReason.STOP, None, "end_turn"),
    (FinishReason.STOP, "###", "stop_sequence"),
    (FinishReason.LENGTH, None, "max_tokens"),
    (FinishReason.TOOL_CALLS, None, "tool_use"),
    (FinishReason.CONTENT_FILTER, None, "refusal"),
]


@pytest.mark.parametrize(("reason", "stop", "told"), REASONS)
def test_why_it_ended(reason, stop, told):
    answer = answer_of([core.TokenChunk(text_delta="x", finish_reason=reason, stop_string=stop)])
    whole = json.loads(shape().whole([answer], USAGE))
    assert (whole["stop_reason"], whole["stop_sequence"]) == (told, stop)
    assert whole["usage"] == {
        "input_tokens": 7, "output_tokens": 4, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 0,
    }  # fmt: skip


def test_a_sign_of_life_is_an_event():
    assert named_events(shape().ping) == [{"type": "ping"}]


ERRORS = [
    (core.BadRequest("wrong", "top_k"), 400, "invalid_request_error", "top_k: wrong"),
    (core.BadRequest("`top_k` is wrong", "top_k"), 400, "invalid_request_error", "`top_k` is wrong"),
    (core.ContextLengthExceeded(9, 8), 400, "invalid_request_error", "context is 8 tokens"),
    (core.ModelNotFound("m"), 404, "not_found_error", "`m` does not exist"),
    (core.RateLimited("p", 3.0), 429, "rate_limit_error", "rate-limited"),
    (core.BudgetExceeded("m"), 402, "billing_error", "budget"),
    (core.Backpressure("full"), 529, "overloaded_error", "full"),
    (core.DeploymentUnavailable("m", "it loads"), 529, "overloaded_error", "it loads"),
    (core.Timeout(5), 504, "timeout_error", "timeout"),
    (core.ServerError(500), 500, "api_error", "upstream"),
    (RuntimeError("secret"), 500, "api_error", "req-7"),
]


@pytest.mark.parametrize(("error", "status", "kind", "text"), ERRORS)
def test_errors_have_their_own_statuses_and_types(error, status, kind, text):
    reply = error_reply(error, "req-7", prompt_param="messages", now=0.0)
    other = translated(reply, "/v1/messages/count_tokens", "req-7")
    body = json.loads(other.body)
    assert other.status == status
    assert set(body) == {"type", "error", "request_id"}
    assert (body["type"], body["error"]["type"], body["request_id"]) == ("error", kind, "req-7")
    assert text in body["error"]["message"]
    assert dict(other.headers) == {**dict(reply.headers), "content-length": str(len(other.body))}
    assert translated(reply, "/v1/completions", "req-7") is reply


def test_which_paths_speak_it():
    assert is_messages_api("/v1/messages")
    assert is_messages_api("/v1/messages/count_tokens")
    assert not is_messages_api("/v1/messagesx")


def test_every_failure_has_a_known_type():
    kinds = {wire.messages_error(wire.Failure(status, FAILURE.error, "r")).error.type for status in range(400, 600)}
    assert kinds == {
        "invalid_request_error", "authentication_error", "billing_error", "permission_error", "not_found_error",
        "request_too_large", "rate_limit_error", "api_error", "timeout_error", "overloaded_error",
    }  # fmt: skip


# Requests.

BASE = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "hi"}]}


def batch_of(**fields):
    body = json.dumps({name: value for name, value in {**BASE, **fields}.items() if value is not ...}).encode()
    (batch,) = wire.messages_generation(wire.decode_messages(body), "msg_1").prompts
    return batch


def turns_of(**fields):
    return [(turn.role.value, turn.text) for turn in batch_of(**fields).messages]


def test_the_fields_of_a_request():
    batch = batch_of(
        stop_sequences=["a", "b"], temperature=0.5, top_k=3, top_p=0, metadata={"user_id": "u"}, stream=True,
        thinking={"type": "disabled"}, service_tier="auto", output_config={"effort": "low"}, unknown={"x": 1},
        tools=[], tool_choice={"type": "auto"},
    )  # fmt: skip
    sampling = batch.sampling
    assert (sampling.max_tokens, sampling.stop, sampling.temperature, sampling.top_k) == (5, ("a", "b"), 0.5, 3)
    assert 0 < sampling.top_p < 1e-6
    assert (batch.model, batch.stream, batch.request_id) == ("m", True, "msg_1")
    assert batch.messages == (Message(Role.USER, "hi"),)


def test_system_and_blocks_are_text():
    blocks = [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "b"}]
    thought = [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "redacted_thinking", "data": "x"}]
    messages = [
        {"role": "user", "content": blocks},
        {"role": "assistant", "content": [*thought, *blocks]},
        {"role": "user", "content": "c"},
    ]
    assert turns_of(system=blocks, messages=messages) == [
        ("system", "ab"), ("user", "ab"), ("assistant", "ab"), ("user", "c"),
    ]  # fmt: skip
    assert turns_of(system="s") == [("system", "s"), ("user", "hi")]
    assert turns_of(system="") == [("user", "hi")]


@given(st.lists(st.sampled_from(["user", "assistant"]), max_size=8))
def test_turns_of_the_same_side_are_one(roles):
    messages = [{"role": role, "content": f"{at}"} for at, role in enumerate([*roles, "user"])]
    turns = turns_of(messages=messages)
    assert all(one[0] != two[0] for one, two in pairwise(turns))
    assert "\n\n".join(text for _, text in turns) == "\n\n".join(turn["content"] for turn in messages)
    assert [role for role, text in turns for _ in text.split("\n\n")] == [turn["role"] for turn in messages]


HI = {"role": "user", "content": "hi"}
IMAGE = {"type": "image", "source": {}}
USE = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "42"}
SEEN = {**RESULT, "content": [IMAGE]}
REFUSED = [
    ({"max_tokens": ...}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": [{"type": "new"}]}]}, "messages[0].content[0].type"),
    ({"temperature": 3}, "temperature"),
    ({"top_k": -1}, "top_k"),
    ({"stop_sequences": [""]}, "stop_sequences[0]"),
    ({"stop_sequences": "x"}, "stop_sequences"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0]"),
    ({"tools": [{"name": "a b"}]}, "tools[0].name"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"tools": [{"name": "f"}], "tool_choice": {"type": "tool", "name": "g"}}, "tool_choice"),
    ({"messages": [{"role": "user", "content": [USE]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "assistant", "content": [RESULT]}, HI]}, "messages[0].content[0]"),
    (
        {"messages": [{"role": "user", "content": [{**RESULT, "content": [IMAGE]}]}]},
        "messages[0].content[0].content[0]",
    ),
    ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking"),
    ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    ({"output_config": {"format": {"type": "text"}}}, "output_config.format.type"),
    ({"mcp_servers": [{"type": "url"}]}, "mcp_servers"),
    ({"container": "x"}, "container"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED)
def test_what_is_refused_is_named(fields, param):
    with pytest.raises(BadRequest) as caught:
        batch_of(**fields)
    assert caught.value.param == param
    assert param.partition("[")[0] in caught.value.message


@pytest.mark.parametrize("kind", ["image", "document", "search_result"])
def test_content_that_is_not_text_is_refused_by_its_kind(kind):
    content = [{"type": "text", "text": "x"}, {"type": kind}]
    with pytest.raises(BadRequest, match=f"`{kind}`") as caught:
        batch_of(messages=[{"role": "user", "content": content}])
    assert caught.value.param == "messages[0].content[1]"


def test_calls_and_their_results_are_turns():
    messages = [
        HI,
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "x"}, USE]},
        {"role": "user", "content": [RESULT, {"type": "text", "text": "y"}, {"type": "text", "text": "z"}]},
    ]
    _, said, result, more = batch_of(messages=messages).messages
    assert (said.text, said.reasoning) == ("x", "hm")
    assert said.tool_calls == (core.ToolCall("toolu_1", "f", '{"a":1}'),)
    assert result == Message(Role.TOOL, "42", tool_call_id="toolu_1", name="f")
    assert more == Message(Role.USER, "yz")
    parts = {**RESULT, "content": [{"type": "text", "text": "4"}, {"type": "text", "text": "2"}]}
    messages[2:] = [{"role": "user", "content": [parts, {**RESULT, "tool_use_id": "toolu_2", "content": None}]}]
    assert [turn.text for turn in batch_of(messages=messages).messages[2:]] == ["42", ""]


TOOLS = [{"name": "f", "description": "d", "input_schema": {"type": "object"}}, {"name": "g", "type": "custom"}]
CHOICES = [
    (None, (False, set(), True)),
    ({"type": "auto", "disable_parallel_tool_use": True}, (False, set(), False)),
    ({"type": "any"}, (True, set(), True)),
    ({"type": "tool", "name": "g"}, (True, {"g"}, True)),
]


@pytest.mark.parametrize(("choice", "told"), CHOICES)
def test_tools_are_offered(choice, told):
    offer = batch_of(tools=TOOLS, tool_choice=choice).tools
    assert (offer.required, set(offer.only), offer.parallel) == told
    assert offer.tools == (core.Tool("f", "d", {"type": "object"}), core.Tool("g"))
    body = json.dumps({**BASE, "tools": TOOLS, "tool_choice": choice}).encode()
    assert wire.messages_question(wire.decode_count(body)).tools == offer
    assert batch_of(tools=TOOLS, tool_choice={"type": "none"}).tools is None


def test_an_answer_may_be_begun_by_the_client():
    begun = {"role": "assistant", "content": "The answer is"}
    for messages, go_on in [([HI], False), ([HI, begun], True), ([HI, begun, begun], True), ([HI, begun, HI], False)]:
        batch = batch_of(messages=messages)
        assert (batch.rendering.go_on, batch.rendering.begin) == (go_on, not go_on)
        question = wire.messages_question(wire.decode_count(json.dumps({**BASE, "messages": messages}).encode()))
        assert (question.rendering, question.messages) == (batch.rendering, batch.messages)


def test_thoughts_alone_are_no_conversation():
    thoughts = {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}]}
    with pytest.raises(BadRequest) as caught:
        batch_of(messages=[thoughts], system="s")
    assert caught.value.param == "messages"


def test_a_question_for_the_length_is_about_the_same_prompt():
    body = json.dumps({**BASE, "system": "s", "max_tokens": None}).encode()
    question = wire.messages_question(wire.decode_count(body))
    assert (question.model, question.messages) == ("m", batch_of(system="s").messages)
    assert (question.add_special, question.rendering.begin) == (False, True)
