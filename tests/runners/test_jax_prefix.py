"""What the prefix cache needs from a request, and what it tells the client, goes through the runner."""

from types import SimpleNamespace

import pytest

from atomr_trio.core import ExecuteBatch, FinishReason
from atomr_trio.engine import frames
from atomr_trio.runners import jax_local


class Decoder:
    """Text is the number of tokens so far."""

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
    sequence = jax_local._Sequence(out, Decoder(), prompt_tokens=20)
    reasons = [None, FinishReason.LENGTH if ends == "in the engine" else None, None]
    for number, reason in enumerate(reasons[: 2 if reasons[1] else 3]):
        sequence.take(frames.SequenceOutput(0, [number], finish_reason=reason, cached_tokens=16))
    assert [chunk.usage.cached_tokens for chunk in out if chunk.usage is not None] == [16]
    assert out[-1].usage.input_tokens == 20


def test_priority_and_salt_reach_the_engine():
    codec = SimpleNamespace(tokenizer=SimpleNamespace(eos_ids=frozenset({2})))
    batch = ExecuteBatch(request_id="r", model="m", prompt_ids=(3, 4), priority=-3, cache_salt="tenant")
    request = jax_local._request(7, batch, codec)
    assert (request.id, request.priority, request.salt) == (7, -3, "tenant")
    plain = jax_local._request(7, ExecuteBatch(request_id="r", model="m", prompt_ids=(3, 4)), codec)
    assert (plain.priority, plain.salt) == (0, "")
