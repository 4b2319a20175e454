"""Streams and whole answers: the rules that clients rely on, for any sequence of chunks."""

import codecs
import json
from itertools import pairwise

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import FinishReason, TokenChunk, TokenLogprob, Tokens, TokenUsage
from atomr_trio.gateway.wire import PING, ChatShape, CompletionShape, event

REASONS = [FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS, FinishReason.CONTENT_FILTER]


@st.composite
def interleaved(draw):
    """The chunks of several choices, in any order that keeps each choice's own."""
    choices = {}
    for index in range(draw(st.integers(1, 4))):
        texts = draw(st.lists(st.text(max_size=4), max_size=5))
        chunks = [TokenChunk(text_delta=text) for text in texts]
        last = TokenChunk(text_delta=draw(st.text(max_size=3)), finish_reason=draw(st.sampled_from(REASONS)))
        choices[index] = [*chunks, last]
    order = draw(st.permutations([index for index, chunks in choices.items() for _ in chunks]))
    queues = {index: list(chunks) for index, chunks in choices.items()}
    return choices, [(index, queues[index].pop(0)) for index in order]


def parse(data):
    blocks = data.decode().split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") and "\n" not in block and "\r" not in block for block in blocks)
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def streamed(shape, news):
    return parse(b"".join(shape.chunk(index, chunk) for index, chunk in news) + shape.usage(TokenUsage(3, 4, 1, 2)))


@given(interleaved(), st.booleans())
def test_a_chat_stream(case, include_usage):
    choices, news = case
    events = streamed(ChatShape("chatcmpl-1", 17, "m", include_usage), news)
    check_envelopes(events, "chat.completion.chunk", "chatcmpl-1", include_usage)
    for index, chunks in choices.items():
        own = [choice for each in events for choice in each["choices"] if choice["index"] == index]
        assert own[0]["delta"] == {"role": "assistant", "content": None}
        assert all(set(choice) == {"index", "delta", "finish_reason", "logprobs"} for choice in own)
        assert all("role" not in choice["delta"] for choice in own[1:])
        assert "".join(choice["delta"]["content"] for choice in own[1:-1]) == "".join(c.text_delta for c in chunks)
        assert all(choice["delta"]["content"] for choice in own[1:-1])
        assert (own[-1]["delta"], own[-1]["finish_reason"]) == ({}, chunks[-1].finish_reason.value)
        assert [choice["finish_reason"] for choice in own[:-1]] == [None] * (len(own) - 1)


@given(interleaved(), st.booleans())
def test_a_completion_stream(case, include_usage):
    choices, news = case
    events = streamed(CompletionShape("cmpl-1", 17, "m", include_usage), news)
    check_envelopes(events, "text_completion", "cmpl-1", include_usage)
    for index, chunks in choices.items():
        own = [choice for each in events for choice in each["choices"] if choice["index"] == index]
        assert len(own) <= len(chunks)
        assert "".join(choice["text"] for choice in own) == "".join(chunk.text_delta for chunk in chunks)
        assert own[-1]["finish_reason"] == chunks[-1].finish_reason.value
        assert own[-1]["text"] == chunks[-1].text_delta
        assert [choice["finish_reason"] for choice in own[:-1]] == [None] * (len(own) - 1)


tokens_of_an_answer = st.lists(
    st.builds(
        lambda text, logprob, top: TokenLogprob(
            text.decode(errors="replace") if text is not None else "<|end|>", text, logprob, tuple(top)
        ),
        st.none() | st.binary(max_size=3) | st.text(max_size=3).map(str.encode),
        st.floats(max_value=0, allow_nan=False),
        st.lists(
            st.builds(
                lambda text: TokenLogprob(text.decode(errors="replace"), text, -1.0), st.binary(min_size=1, max_size=3)
            ),
            max_size=3,
        ),
    ),
    max_size=8,
)


def told(details, cuts):
    """The chunks of an answer whose tokens come in these portions; the text comes when it can be shown."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    edges = [0, *sorted(cut % (len(details) + 1) for cut in cuts), len(details)]
    portions = [details[start:end] for start, end in pairwise(edges)]
    last = TokenChunk(finish_reason=FinishReason.STOP, text_delta="")
    chunks = [
        TokenChunk(
            text_delta="".join(decoder.decode(each.text or b"") for each in portion),
            token_ids=tuple(range(len(portion))),
            details=tuple(portion),
        )
        for portion in portions
    ]
    return [*chunks, evolve(last, text_delta=decoder.decode(b"", final=True))]


def answer_of(chunks):
    tokens = Tokens()
    for chunk in chunks:
        tokens.append(chunk)
    return tokens


@given(details=tokens_of_an_answer, cuts=st.lists(st.integers(0, 99), max_size=3))
def test_chat_log_probabilities_are_the_same_streamed_and_whole(details, cuts):
    chunks = told(details, cuts)
    (whole,) = json.loads(ChatShape("id", 17, "m", logprobs=True).whole([answer_of(chunks)], TokenUsage()))["choices"]
    events = streamed(ChatShape("id", 17, "m", logprobs=True), [(0, chunk) for chunk in chunks])
    choices = [choice for each in events for choice in each["choices"]]
    assert choices[-1]["delta"] == {}
    assert choices[-1]["logprobs"] is None
    content = [token for choice in choices if choice["logprobs"] for token in choice["logprobs"]["content"]]
    assert whole["logprobs"] == {"content": content, "refusal": None}
    assert len(content) == len(details)
    for token, detail in zip(content, details, strict=True):
        assert set(token) == {"token", "logprob", "bytes", "top_logprobs"}
        assert token["bytes"] == (None if detail.text is None else list(detail.text))
        assert token["logprob"] == max(detail.logprob, -9999.0)
        assert [each["bytes"] for each in token["top_logprobs"]] == [list(other.text) for other in detail.top]
        assert all(set(each) == {"token", "logprob", "bytes"} for each in token["top_logprobs"])


@given(details=tokens_of_an_answer, cuts=st.lists(st.integers(0, 99), max_size=3))
def test_completion_log_probabilities_are_the_same_streamed_and_whole(details, cuts):
    chunks = told(details, cuts)
    answer = answer_of(chunks)
    (whole,) = json.loads(CompletionShape("id", 17, "m", logprobs=True).whole([answer], TokenUsage()))["choices"]
    events = streamed(CompletionShape("id", 17, "m", logprobs=True), [(0, chunk) for chunk in chunks])
    parts = [choice["logprobs"] for each in events for choice in each["choices"] if choice["logprobs"]]
    names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    assert whole["logprobs"] == {name: [one for part in parts for one in part[name]] for name in names}
    got = whole["logprobs"]
    assert [len(got[name]) for name in names] == [len(details)] * 4
    for at, detail in enumerate(details):
        label, offset = got["tokens"][at], got["text_offset"][at]
        assert got["top_logprobs"][at][label] in {max(each.logprob, -9999.0) for each in (detail, *detail.top)}
        before = b"".join(each.text or b"" for each in details[:at])
        if not label.startswith("bytes:") and before.decode(errors="ignore").encode() == before and detail.text:
            assert answer.text[offset:].startswith(label)
    assert got["text_offset"] == sorted(got["text_offset"])


@given(details=tokens_of_an_answer)
def test_log_probabilities_that_nobody_asked_for_are_null(details):
    chunks = told(details, [])
    for shape in (ChatShape, CompletionShape):
        whole = json.loads(shape("id", 17, "m").whole([answer_of(chunks)], TokenUsage()))
        events = streamed(shape("id", 17, "m"), [(0, chunk) for chunk in chunks])
        assert {choice["logprobs"] for each in [whole, *events] for choice in each["choices"]} == {None}


def test_half_characters_have_names_that_differ():
    halves = [TokenLogprob("\ufffd", bytes([byte]), -1.0) for byte in (0xE2, 0x82, 0xAC)]
    first = TokenLogprob("\ufffd", b"\xe2", -1.0, tuple(halves))
    answer = answer_of([TokenChunk(text_delta="€", details=(first, *halves[1:]))])
    (choice,) = json.loads(CompletionShape("id", 17, "m", logprobs=True).whole([answer], TokenUsage()))["choices"]
    assert choice["logprobs"]["tokens"] == [r"bytes:\xe2", r"bytes:\x82", r"bytes:\xac"]
    assert len(choice["logprobs"]["top_logprobs"][0]) == 3
    assert choice["logprobs"]["text_offset"] == [0, 0, 0]


def check_envelopes(events, kind, id, include_usage):
    assert {(each["id"], each["object"], each["created"], each["model"]) for each in events} == {(id, kind, 17, "m")}
    if not include_usage:
        assert all("usage" not in each for each in events)
        assert all(len(each["choices"]) == 1 for each in events)
        return
    assert all(each["usage"] is None and len(each["choices"]) == 1 for each in events[:-1])
    assert events[-1]["choices"] == []
    assert events[-1]["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }


@given(interleaved())
def test_a_whole_answer_says_what_the_stream_says(case):
    choices, _ = case
    answers = []
    for chunks in choices.values():
        tokens = Tokens()
        for chunk in chunks:
            tokens.append(chunk)
        answers.append(tokens)
    texts = ["".join(chunk.text_delta for chunk in chunks) for chunks in choices.values()]
    reasons = [chunks[-1].finish_reason.value for chunks in choices.values()]
    chat = json.loads(ChatShape("id", 17, "m").whole(answers, TokenUsage(1, 2)))
    plain = json.loads(CompletionShape("id", 17, "m").whole(answers, TokenUsage(1, 2)))
    assert [choice["message"] for choice in chat["choices"]] == [
        {"role": "assistant", "content": text, "refusal": None} for text in texts
    ]
    assert [choice["text"] for choice in plain["choices"]] == texts
    for answer in [chat, plain]:
        assert [choice["finish_reason"] for choice in answer["choices"]] == reasons
        assert [choice["index"] for choice in answer["choices"]] == list(range(len(texts)))
        assert all(choice["logprobs"] is None for choice in answer["choices"])
        assert answer["usage"]["total_tokens"] == 3


@given(st.text())
def test_an_event_is_one_line_whatever_the_text(text):
    assert parse(event({"text": text})) == [{"text": text}]


def test_a_heartbeat_is_a_comment():
    assert PING.startswith(b":")
    assert PING.endswith(b"\n\n")


@given(st.text(max_size=6), st.text(max_size=8) | st.just("\0text\0"), st.booleans())
def test_a_text_is_told_in_the_same_words_whatever_frame_it_is_put_in(text, model, include_usage):
    shape = ChatShape("chatcmpl-1", 17, model, include_usage)
    shape.chunk(0, TokenChunk(text_delta="a"))
    chunk = TokenChunk(text_delta="\0text\0" + text)
    (told,) = parse(shape.chunk(0, chunk))
    first = parse(ChatShape("chatcmpl-1", 17, model, include_usage).chunk(0, chunk))[-1]
    assert told == first
    assert list(told) == list(first)
