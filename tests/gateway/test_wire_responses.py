"""``/v1/responses``: requests, and the order of events."""

import json

import pytest
from attrs import evolve
from hypothesis import example, given
from hypothesis import strategies as st

from atomr_trio.core import (
    BadRequest,
    FinishReason,
    Message,
    Role,
    TokenChunk,
    TokenLogprob,
    TokenUsage,
    Tool,
    ToolCall,
)
from atomr_trio.gateway import wire
from atomr_trio.gateway.wire import Failure, ResponsesShape

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
BASE = {"model": "m", "input": "hi"}


def request_of(**fields):
    return wire.decode_response(
        json.dumps({name: v for name, v in {**BASE, **fields}.items() if v is not ...}).encode()
    )


def shape(logprobs=False, **fields):
    return ResponsesShape(wire.response_begun(request_of(**fields), "resp_1", 17), logprobs)


def check_frame(events):
    """What all streams have: numbers from 0 on, the same response, one begin, one end."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"] for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[0]["response"] == events[1]["response"]
    assert (events[0]["response"]["status"], events[0]["response"]["output"]) == ("in_progress", [])
    assert all(("response" in event) is (number in (0, 1, len(events) - 1)) for number, event in enumerate(events))
    assert {event["response"]["id"] for event in events if "response" in event} == {"resp_1"}
    return events[2:-1], events[-1]


def check_places(events):
    assert all(event["output_index"] == 0 for event in events)
    items = {event["item"]["id"] for event in events if "item" in event}
    assert {event.get("item_id", "msg_1_0") for event in events} | items <= {"msg_1_0"}
    assert all(event.get("content_index", 0) == 0 for event in events)


@given(pieces=chunks, last=lasts)
def test_a_stream_is_one_response_of_one_message(pieces, last):
    answer = [*pieces, last]
    (added, begun, *deltas, text_done, part_done, item_done), end = check_frame(
        streamed(shape(), PROMPT, answer, USAGE)
    )
    check_places([added, begun, *deltas, text_done, part_done, item_done])
    assert [event["type"].removeprefix("response.") for event in (added, begun, text_done, part_done, item_done)] == [
        "output_item.added", "content_part.added", "output_text.done", "content_part.done", "output_item.done",
    ]  # fmt: skip
    assert (added["item"]["status"], added["item"]["content"]) == ("in_progress", [])
    assert begun["part"] == {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    assert {event["type"] for event in deltas} <= {"response.output_text.delta"}
    assert all(event["delta"] and event["logprobs"] == [] for event in deltas)
    text = "".join(event["delta"] for event in deltas)
    assert text == text_of(answer) == text_done["text"] == part_done["part"]["text"]
    assert item_done["item"]["content"] == [part_done["part"]]
    assert end["response"] == json.loads(shape().whole([answer_of(answer)], USAGE))
    assert end["response"]["output"] == [item_done["item"]]
    assert end["type"] == f"response.{end['response']['status']}"


FIELDS = {"message": "response.output_text", "reasoning": "response.reasoning_text"}


def read_items(events):
    """The kind and text of each item; each begins empty, grows and ends before the next begins."""
    found = []
    while events:
        added = events.pop(0)
        assert (added["type"], added["output_index"]) == ("response.output_item.added", len(found))
        item = added["item"]
        own = [event for event in events if event["output_index"] == len(found)]
        del events[: len(own)]
        assert item["status"] == "in_progress"
        assert all(event["item_id"] == item["id"] for event in own[:-1])
        if item["type"] == "function_call":
            delta, done = own[:-1]
            assert delta["type"] == "response.function_call_arguments.delta"
            assert done["type"] == "response.function_call_arguments.done"
            assert delta["delta"] == done["arguments"] == own[-1]["item"]["arguments"]
            assert (item["arguments"], done["name"]) == ("", item["name"])
            text = delta["delta"]
        else:
            begun, *deltas, text_done, part_done = own[:-1]
            assert {event["type"] for event in deltas} <= {f"{FIELDS[item['type']]}.delta"}
            assert (begun["type"], item["content"]) == ("response.content_part.added", [])
            assert (text_done["type"], part_done["type"]) == (
                f"{FIELDS[item['type']]}.done", "response.content_part.done",
            )  # fmt: skip
            text = "".join(event["delta"] for event in deltas)
            assert text_done["text"] == part_done["part"]["text"] == text
            assert own[-1]["item"]["content"] == [part_done["part"]]
        assert own[-1]["type"] == "response.output_item.done"
        found.append((item["type"], text, own[-1]["item"]))
    return found


def read_as(form):
    made = shape()
    made.read_as(form)
    return made


@given(pieces=marked, last=marked_last)
@example(pieces=[], last=TokenChunk(text_delta="a!", finish_reason=FinishReason.STOP))
@example(pieces=[], last=TokenChunk(text_delta="!A", finish_reason=FinishReason.STOP))
def test_reasoning_and_calls_are_items_in_their_order(pieces, last):
    answer = [*pieces, last]
    events, end = check_frame(streamed(read_as(MARKED), PROMPT, answer, USAGE))
    items = read_items(events)
    kinds = {"said": "message", "thought": "reasoning"}
    expected = [
        ("function_call", '{"a": 1}') if kind == "call" else (kinds[kind], text) for kind, text in said_of(answer)
    ]
    assert [(kind, text) for kind, text, _ in items] == (expected or [("message", "")])
    assert end["response"]["output"] == [item for *_, item in items]
    assert end["response"] == json.loads(read_as(MARKED).whole([answer_of(answer)], USAGE))
    assert all(item["status"] == "completed" for *_, item in items[:-1])
    ids = [item["id"] for *_, item in items]
    assert len(set(ids)) == len(ids)


@given(pieces=marked)
def test_what_fails_in_the_middle_tells_the_items_so_far(pieces):
    events, end = check_frame(streamed(read_as(MARKED), PROMPT, pieces, USAGE))
    added = [event["item"]["id"] for event in events if event["type"] == "response.output_item.added"]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    output = end["response"]["output"]
    assert [item["id"] for item in output] == added
    assert output[: len(done)] == done
    assert [item["status"] for item in output[len(done) :]] == ["incomplete"] * (len(added) - len(done))


@given(pieces=chunks)
def test_a_stream_that_fails_ends_with_one_failed_response(pieces):
    events, end = check_frame(streamed(shape(), PROMPT, pieces, USAGE))
    check_places(events)
    assert end["type"] == "response.failed"
    response = end["response"]
    assert (response["status"], response["usage"]) == ("failed", None)
    assert response["error"] == {"code": "server_error", "message": "full"}
    said = "".join(event["delta"] for event in events if event["type"].endswith("delta"))
    assert said == text_of(pieces) == "".join(part["text"] for item in response["output"] for part in item["content"])
    assert all(item["status"] == "incomplete" for item in response["output"])
    assert not {event["type"] for event in events} & {"response.output_item.done", "response.completed"}


CODES = [(400, "invalid_prompt"), (429, "rate_limit_exceeded"), (500, "server_error")]


@pytest.mark.parametrize(("status", "code"), CODES)
def test_failures_have_the_few_codes_of_this_api(status, code):
    (event,) = named_events(shape().failure(Failure(status, FAILURE.error, "r")))
    assert event["response"]["error"]["code"] == code


REASONS = [
    (FinishReason.STOP, "completed", None),
    (FinishReason.TOOL_CALLS, "completed", None),
    (FinishReason.LENGTH, "incomplete", {"reason": "max_output_tokens"}),
    (FinishReason.CONTENT_FILTER, "incomplete", {"reason": "content_filter"}),
]


@pytest.mark.parametrize(("reason", "status", "details"), REASONS)
def test_a_whole_response(reason, status, details):
    asked = {"instructions": "Be brief.", "max_output_tokens": 9, "metadata": {"a": "b"}, "temperature": 0}
    made = shape(**asked, top_p=0.5, user="u", store=True, truncation="auto", parallel_tool_calls=False)
    told = json.loads(made.whole([answer_of([TokenChunk(text_delta="x", finish_reason=reason)])], USAGE))
    text = {"type": "output_text", "text": "x", "annotations": [], "logprobs": []}
    assert told == {
        "id": "resp_1", "object": "response", "created_at": 17, "status": status, "background": False, "error": None,
        "incomplete_details": details, **asked, "max_tool_calls": None, "model": "m",
        "output": [{"type": "message", "id": "msg_1_0", "status": status, "content": [text], "role": "assistant"}],
        "parallel_tool_calls": False, "previous_response_id": None, "reasoning": {"effort": None, "summary": None},
        "service_tier": "default", "store": False, "text": {"format": {"type": "text"}}, "tool_choice": "auto",
        "tools": [], "top_logprobs": 0, "top_p": 0.5, "truncation": "auto", "user": "u", "usage": {
            "input_tokens": 9, "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
            "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 13,
        },
    }  # fmt: skip


details = st.lists(
    st.builds(
        lambda text, logprob: TokenLogprob(text, text.encode(), logprob, (TokenLogprob("z", b"z", -2.0),)),
        st.text(min_size=1, max_size=2),
        st.floats(-50, 0),
    ),
    max_size=3,
).map(tuple)


@given(tokens=st.lists(details, min_size=1, max_size=4), asked=st.booleans())
def test_log_probabilities_are_the_same_streamed_and_whole(tokens, asked):
    answer = [TokenChunk(text_delta="".join(token.name for token in each), details=each) for each in tokens]
    answer[-1] = evolve(answer[-1], finish_reason=FinishReason.STOP)
    events, _ = check_frame(streamed(shape(asked), PROMPT, answer, USAGE))
    deltas = [event for event in events if event["type"].endswith("delta")]
    told = [token for event in deltas for token in event["logprobs"]]
    assert [token["token"] for token in told] == ([token.name for each in tokens for token in each] if asked else [])
    whole = json.loads(shape(asked).whole([answer_of(answer)], USAGE))
    assert whole["output"][0]["content"][0]["logprobs"] == told == events[-1]["item"]["content"][0]["logprobs"]


@pytest.mark.parametrize("text", ["", "x"])
def test_a_token_without_text_is_told_too(text):
    token = TokenLogprob("<|end|>", None, -1.0)
    last = TokenChunk(details=(token,), finish_reason=FinishReason.STOP)
    answer = [TokenChunk(text_delta=text), last]
    events, end = check_frame(streamed(shape(True), PROMPT, answer, USAGE))
    (part,) = events[-1]["item"]["content"]
    assert (part["text"], [each["token"] for each in part["logprobs"]]) == (text, ["<|end|>"])
    deltas = [event for event in events if event["type"].endswith("delta")]
    assert [token for event in deltas for token in event["logprobs"]] == part["logprobs"]
    assert end["response"] == json.loads(shape(True).whole([answer_of(answer)], USAGE))


# Requests.


def batch_of(**fields):
    (batch,) = wire.response_generation(request_of(**fields), "resp_1").prompts
    return batch


def turns_of(**fields):
    return [(turn.role.value, turn.text) for turn in batch_of(**fields).messages]


def test_the_fields_of_a_request():
    batch = batch_of(
        max_output_tokens=5, temperature=0.5, top_p=0, include=["message.output_text.logprobs", "other"],
        top_logprobs=2, stream=True, stream_options={"include_obfuscation": False}, cache_salt="s", unknown=1,
        text={"format": {"type": "text"}, "verbosity": "medium"}, reasoning={"effort": "none", "summary": "auto"},
        background=False, tools=[], tool_choice="auto", previous_response_id=None,
    )  # fmt: skip
    sampling = batch.sampling
    assert (sampling.max_tokens, sampling.temperature, sampling.logprobs, sampling.top_logprobs) == (5, 0.5, True, 2)
    assert 0 < sampling.top_p < 1e-6
    assert (batch.model, batch.stream, batch.request_id, batch.cache_salt) == ("m", True, "resp_1", "s")


def test_items_are_turns():
    said = [{"type": "output_text", "text": "b", "annotations": []}, {"type": "refusal", "refusal": "!"}]
    items = [
        {"role": "developer", "content": "a"},
        {"role": "user", "content": [{"type": "input_text", "text": "x"}, {"type": "input_text", "text": "y"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "id": "msg_0", "role": "assistant", "status": "completed", "content": said},
        {"type": "message", "role": "user", "content": "c"},
        {"type": "message", "role": "user", "content": "d"},
    ]
    assert turns_of(input=items, instructions="i") == [
        ("system", "i\n\na"), ("user", "xy"), ("assistant", "b!"), ("user", "c\n\nd"),
    ]  # fmt: skip
    assert turns_of(input="x", instructions="i") == [("system", "i"), ("user", "x")]


def user(part):
    return {"input": [{"role": "user", "content": [part]}]}


CALL = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": '{"a": 1}'}
REFUSED = [
    ({"input": ...}, "input", "required"),
    ({"input": []}, "input", ""),
    ({"input": [{"type": "reasoning"}]}, "input", "no message"),
    ({"input": [{"role": "user"}]}, "input[0].content", "required"),
    ({"input": [{"content": "x"}]}, "input[0].role", "required"),
    ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id", "required"),
    ({"input": [{**CALL, "arguments": "[]"}]}, "input[0].arguments", "JSON object"),
    ({"input": [{"type": "function_call_output", "call_id": "x"}]}, "input[0].output", "required"),
    ({"input": [{"type": "computer_call"}]}, "input[0]", "`computer_call`"),
    ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]", "stores none"),
    (user({"type": "input_image", "image_url": "x"}), "input[0].content[0]", "`input_image`"),
    (user({"type": "input_file"}), "input[0].content[0]", "`input_file`"),
    (user({"type": "new"}), "input[0].content[0].type", "new"),
    ({"previous_response_id": "resp_0"}, "previous_response_id", "stores none"),
    ({"conversation": "conv_0"}, "conversation", "stores none"),
    ({"background": True}, "background", "stores none"),
    ({"prompt": {"id": "x"}}, "prompt", ""),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type", "web_search"),
    ({"tools": [{"type": "function"}]}, "tools[0].name", "required"),
    ({"tool_choice": "required"}, "tool_choice", ""),
    ({"text": {"format": {"type": "yaml"}}}, "text.format.type", "yaml"),
    ({"text": {"verbosity": "low"}}, "text.verbosity", ""),
    ({"reasoning": {"effort": "high"}}, "reasoning.effort", ""),
    ({"max_output_tokens": 0}, "max_output_tokens", ""),
    ({"stream_options": {}}, "stream_options", ""),
]


@pytest.mark.parametrize(("fields", "param", "text"), REFUSED)
def test_what_is_refused_is_named(fields, param, text):
    with pytest.raises(BadRequest) as caught:
        batch_of(**fields)
    assert caught.value.param == param
    assert text in caught.value.message


def test_calls_and_their_results_are_turns():
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    result = {"type": "function_call_output", "call_id": "call_1", "output": [{"type": "input_text", "text": "42"}]}
    called, told, more = batch_of(input=[thought, CALL, {**CALL, "call_id": "c2"}, result, *user_says("y")]).messages
    assert (called.role, called.text, called.reasoning) == (Role.ASSISTANT, "", "hm")
    assert called.tool_calls == (ToolCall("call_1", "f", '{"a": 1}'), ToolCall("c2", "f", '{"a": 1}'))
    assert told == Message(Role.TOOL, "42", tool_call_id="call_1", name="f")
    assert more == Message(Role.USER, "y")


def user_says(text):
    return [{"role": "user", "content": text}]


TOOLS = [
    {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True},
    {"type": "function", "name": "g"},
]
CHOICES = [
    (None, (False, set())),
    ("auto", (False, set())),
    ("required", (True, set())),
    ({"type": "function", "name": "g"}, (True, {"g"})),
    ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]}, (True, {"f"})),
]


@pytest.mark.parametrize(("choice", "told"), CHOICES)
def test_tools_are_offered(choice, told):
    request = request_of(tools=TOOLS, tool_choice=choice, parallel_tool_calls=False)
    offer = batch_of(tools=TOOLS, tool_choice=choice, parallel_tool_calls=False).tools
    assert (offer.required, set(offer.only), offer.parallel) == (*told, False)
    assert offer.tools == (Tool("f", "d", {"type": "object"}, True), Tool("g"))
    assert wire.response_question(request).tools == offer
    begun = json.loads(wire.to_json(wire.response_begun(request, "resp_1", 17)))
    assert begun["tool_choice"] == (choice or "auto")
    assert [tool["name"] for tool in begun["tools"]] == ["f", "g"]
    assert batch_of(tools=TOOLS, tool_choice="none").tools is None


def test_a_question_for_the_length_is_about_the_same_prompt():
    question = wire.response_question(request_of(instructions="i"))
    assert (question.model, question.messages) == ("m", batch_of(instructions="i").messages)
    assert (question.add_special, question.rendering.begin) == (False, True)


words = st.text(max_size=3) | st.sampled_from(["user", "message", "reasoning"])
scalars = st.none() | st.booleans() | st.integers(-3, 9) | words
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "format"]), inner, max_size=4)
    ),
    max_leaves=8,
)
dialects = {
    wire.ResponsesRequest: (wire.decode_response, wire.response_generation),
    wire.MessagesRequest: (wire.decode_messages, wire.messages_generation),
}


@given(data=st.data(), kind=st.sampled_from(list(dialects)))
def test_any_json_object_is_a_request_or_a_typed_error(data, kind):
    decode, translate = dialects[kind]
    base = {**BASE, "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
    fields = base | data.draw(st.dictionaries(st.sampled_from(kind.__struct_fields__), values, max_size=4))
    try:
        translate(decode(json.dumps(fields).encode()), "id")
    except BadRequest as error:
        wire.to_json({"message": error.message, "param": error.param})
