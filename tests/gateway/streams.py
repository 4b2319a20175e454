"""Answers as chunks, in any portions; and streams with named events, read back."""

import json
from itertools import groupby

from hypothesis import strategies as st

from atomr_trio.core import AnswerForm, Called, FinishReason, Said, Thought, TokenChunk, Tokens
from atomr_trio.gateway.wire import Failure

REASONS = [FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS, FinishReason.CONTENT_FILTER]
FAILURE = Failure(503, {"message": "full", "type": "server_error", "param": None, "code": "overloaded"}, "req-1")

chunks = st.lists(st.builds(TokenChunk, text_delta=st.text(max_size=4)), max_size=6)
ends = st.builds(TokenChunk, text_delta=st.text(max_size=3), finish_reason=st.sampled_from(REASONS))
stops = st.builds(TokenChunk, stop_string=st.text("ab", min_size=1), finish_reason=st.just(FinishReason.STOP))
lasts = ends | stops


class MarkedReader:
    """Capitals are thoughts, each ``!`` is a call, and the rest is said. A ``?`` is held back for one more push."""

    def __init__(self):
        self.held = ""

    def push(self, text):
        text, self.held = self.held + text, ""
        if text.endswith("?"):
            text, self.held = text[:-1], "?"
        return [*(piece for kind, run in groupby(text, key=kind_of) for piece in pieces_of(kind, "".join(run)))]

    def finish(self):
        return [Said(self.held)] if self.held else []


def kind_of(letter):
    return Called if letter == "!" else Thought if letter.isupper() else Said


def pieces_of(kind, run):
    return [Called("f", '{"a": 1}') for _ in run] if kind is Called else [kind(run)]


MARKED = AnswerForm(reader=MarkedReader)
marked = st.lists(st.builds(TokenChunk, text_delta=st.text("abAB!?", max_size=5)), max_size=6)
marked_last = st.builds(TokenChunk, text_delta=st.text("abAB!?", max_size=5), finish_reason=st.sampled_from(REASONS))


def said_of(answer):
    """What a marked answer says, in order: the kind and text of each run, and each call by itself."""
    found = []
    for kind, run in groupby(text_of(answer), key=kind_of):
        text = "".join(run)
        found += [("call", text)] * len(text) if kind is Called else [(kind.__name__.lower(), text)]
    return [("call", "!") if kind == "call" else (kind, text) for kind, text in found]


def streamed(shape, prompt, answer, usage):
    """The events of an answer that ends well, or fails when its last chunk has no reason to end."""
    parts = [shape.begin(prompt), *(shape.chunk(0, chunk) for chunk in answer)]
    ended = bool(answer) and answer[-1].finish_reason is not None
    parts.append(shape.end(usage) if ended else shape.failure(FAILURE))
    return named_events(b"".join(parts))


def named_events(data):
    """The object of each event; its name is its type."""
    blocks = data.decode().split("\n\n")
    assert blocks.pop() == ""
    events = []
    for block in blocks:
        name, told = block.split("\n")
        events.append(json.loads(told.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


def answer_of(answer):
    tokens = Tokens()
    for chunk in answer:
        tokens.append(chunk)
    return tokens


def text_of(answer):
    return "".join(chunk.text_delta for chunk in answer)
