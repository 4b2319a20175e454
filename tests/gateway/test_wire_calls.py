"""Calls and reasoning in answers: the same streamed and whole, whatever the chunks."""

import json
from functools import partial
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import (
    AnswerForm,
    Called,
    FinishReason,
    Said,
    Thought,
    TokenChunk,
    TokenLogprob,
    Tokens,
    TokenUsage,
)
from atomr_trio.gateway.wire import ChatShape
from atomr_trio.text import AnswerParser
from atomr_trio.text.calls import FORMS

from .test_wire_shapes import answer_of, parse

OFFERED = {"f": (), "g": ()}
FORM = AnswerForm(
    calls="hermes", reader=partial(AnswerParser, FORMS["hermes"], OFFERED, thoughts=("<think>", "</think>"))
)
THOUGHT = "<think>\nI need f.\n</think>\n\n"
CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
OTHER = '<tool_call>\n{"name": "g", "arguments": {}}\n</tool_call>'

answers = st.tuples(
    st.sampled_from(["", THOUGHT]),
    st.sampled_from(["", "Let me see. ", "Done"]),
    st.lists(st.sampled_from([CALL, OTHER, "<tool_call>no</tool_call>"]), max_size=3).map("\n".join),
    st.sampled_from(["", "\n", " That is all."]),
).map("".join)
reasons = st.sampled_from([FinishReason.STOP, FinishReason.LENGTH])


def shape(logprobs=False):
    made = ChatShape("chatcmpl-1", 17, "m", logprobs=logprobs)
    made.read_as(FORM)
    return made


def chunks_of(text, cuts, reason):
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    chunks = [TokenChunk(text_delta=text[begin:end]) for begin, end in pairwise(edges)]
    return [*chunks, TokenChunk(finish_reason=reason)]


def assembled(choices):
    """What a client makes of the deltas of one choice."""
    message = {"role": "assistant", "content": "", "refusal": None, "reasoning_content": "", "tool_calls": []}
    for choice in choices:
        delta = choice["delta"]
        for key in ("content", "reasoning_content"):
            message[key] += delta.get(key) or ""
        for call in delta.get("tool_calls", ()):
            if call["index"] == len(message["tool_calls"]):
                assert set(call) == {"index", "id", "type", "function"}
                assert call["function"]["arguments"] == ""
                message["tool_calls"].append({key: call[key] for key in ("id", "type", "function")})
            else:
                assert call["index"] == len(message["tool_calls"]) - 1
                assert set(call) == {"index", "function"}
                assert set(call["function"]) == {"arguments"}
                message["tool_calls"][-1]["function"]["arguments"] += call["function"]["arguments"]
    if not message["content"] and (message["tool_calls"] or message["reasoning_content"]):
        message["content"] = None
    return {key: value for key, value in message.items() if value or key in ("content", "refusal")}


@given(texts=st.lists(answers, min_size=1, max_size=2), cuts=st.lists(st.integers(0, 200), max_size=6), reason=reasons)
def test_the_same_streamed_and_whole(texts, cuts, reason):
    chunks = [chunks_of(text, cuts, reason) for text in texts]
    whole = json.loads(shape().whole([answer_of(each) for each in chunks], TokenUsage()))
    streaming = shape()
    turns = zip(*chunks, strict=True)
    events = parse(b"".join(streaming.chunk(at, chunk) for turn in turns for at, chunk in enumerate(turn)))
    ids = set()
    for index, wanted in enumerate(whole["choices"]):
        own = [choice for event in events for choice in event["choices"] if choice["index"] == index]
        assert own[0]["delta"] == {"role": "assistant", "content": None}
        assert all("role" not in choice["delta"] and choice["finish_reason"] is None for choice in own[1:-1])
        assert (own[-1]["delta"], own[-1]["finish_reason"]) == ({}, wanted["finish_reason"])
        assert assembled(own[1:-1]) == wanted["message"]
        calls = wanted["message"].get("tool_calls", [])
        stopped = "tool_calls" if calls else "stop"
        assert wanted["finish_reason"] == (stopped if reason is FinishReason.STOP else "length")
        assert not ids & {call["id"] for call in calls}
        ids |= {call["id"] for call in calls}
        assert all(json.loads(call["function"]["arguments"]) is not None for call in calls)


def whole_message(text, **fields):
    tokens = answer_of([TokenChunk(text_delta=text, finish_reason=FinishReason.STOP, **fields)])
    (choice,) = json.loads(shape().whole([tokens], TokenUsage()))["choices"]
    return choice["message"]


def test_what_a_message_has():
    assert whole_message("a") == {"role": "assistant", "content": "a", "refusal": None}
    assert whole_message("") == {"role": "assistant", "content": "", "refusal": None}
    assert whole_message(THOUGHT + "a") == {
        "role": "assistant", "content": "a", "refusal": None, "reasoning_content": "I need f.",
    }  # fmt: skip
    only_a_call = whole_message(CALL)
    (call,) = only_a_call.pop("tool_calls")
    assert only_a_call == {"role": "assistant", "content": None, "refusal": None}
    assert call.pop("id").startswith("call_")
    assert call == {"type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}


def test_without_a_form_everything_is_text():
    made = ChatShape("chatcmpl-1", 17, "m")
    tokens = answer_of([TokenChunk(text_delta=THOUGHT + CALL, finish_reason=FinishReason.STOP)])
    (choice,) = json.loads(made.whole([tokens], TokenUsage()))["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (THOUGHT + CALL, "stop")


@given(cuts=st.lists(st.integers(0, 200), max_size=6))
def test_every_token_has_its_log_probability_though_it_is_no_text(cuts):
    chunks = [
        TokenChunk(
            text_delta=each.text_delta, details=(TokenLogprob(str(at), b"x", -1.0),), finish_reason=each.finish_reason
        )
        for at, each in enumerate(chunks_of(THOUGHT + CALL, cuts, FinishReason.STOP))
    ]
    streaming = shape(logprobs=True)
    choices = [event["choices"][0] for event in parse(b"".join(streaming.chunk(0, chunk) for chunk in chunks))]
    told = [token["token"] for choice in choices if choice["logprobs"] for token in choice["logprobs"]["content"]]
    assert told == [str(at) for at in range(len(chunks))]


def test_calls_of_a_runner_that_makes_them_itself_pass():
    fragments = [
        {"index": 0, "id": "a1", "type": "function", "function": {"name": "f", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ": 1}"}},
        {"index": 1, "id": "a2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    chunks = [*(TokenChunk(tool_call_delta=each) for each in fragments), TokenChunk(finish_reason=FinishReason.STOP)]
    streaming = shape()
    choices = [event["choices"][0] for event in parse(b"".join(streaming.chunk(0, chunk) for chunk in chunks))]
    assert [choice["delta"]["tool_calls"] for choice in choices[1:-1]] == [[each] for each in fragments]
    assert choices[-1]["finish_reason"] == "tool_calls"
    (whole,) = json.loads(shape().whole([answer_of(chunks)], TokenUsage()))["choices"]
    assert whole["finish_reason"] == "tool_calls"
    assert [(call["id"], call["function"]) for call in whole["message"]["tool_calls"]] == [
        ("a1", {"name": "f", "arguments": '{"a": 1}'}),
        ("a2", {"name": "g", "arguments": "{}"}),
    ]


def test_pieces_are_values():
    assert (Said("a"), Thought("a"), Called("f", "{}")) == (Said("a"), Thought("a"), Called("f", "{}"))
    assert Said("a") != Thought("a")
    assert Tokens().tool_calls == []
