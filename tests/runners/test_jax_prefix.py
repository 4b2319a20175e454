"""What the prefix cache needs from a request, and what it tells the client, goes through the runner."""

from types import SimpleNamespace

import pytest

from atomr_trio.core import ExecuteBatch, FinishReason
from atomr_trio.engine import frames
from atomr_trio.runners import _sequence


class Decoder:
    """Text is the number of tokens so far."""

    stop_string = "3"
    reasoning_tokens = 0

    def __init__(self):
        self.tokens = 0

    def push(self, ids):
        self.tokens += len(ids)
        return f"{self.tokens} ", self.tokens >= 3

    def finish(self):
        return ""


class Sink(list):
    push = list.append


@pytest.mark.parametrize("ends", ["in the engine", "at a stop string"])
def test_what_was_found_is_in_the_usage_however_the_answer_ends(ends):
    out = Sink()
    sequence = _sequence.OpenSequence(out, Decoder(), prompt_tokens=20)
    reasons = [None, FinishReason.LENGTH if ends == "in the engine" else None, None]
    for number, reason in enumerate(reasons[: 2 if reasons[1] else 3]):
        sequence.take(frames.SequenceOutput(0, [number], finish_reason=reason, cached_tokens=16))
    assert [chunk.usage.cached_tokens for chunk in out if chunk.usage is not None] == [16]
    assert out[-1].usage.input_tokens == 20
    assert [chunk.stop_string for chunk in out] == [None] * (len(out) - 1) + [
        "3" if ends == "at a stop string" else None
    ]


def test_priority_and_salt_reach_the_engine():
    codec = SimpleNamespace(tokenizer=SimpleNamespace(eos_ids=frozenset({2})))
    batch = ExecuteBatch(request_id="r", model="m", prompt_ids=(3, 4), priority=-3, cache_salt="tenant")
    request = _sequence.sequence_request(7, batch, codec)
    assert (request.id, request.priority, request.salt) == (7, -3, "tenant")
    plain = _sequence.sequence_request(7, ExecuteBatch(request_id="r", model="m", prompt_ids=(3, 4)), codec)
    assert (plain.priority, plain.salt) == (0, "")
