"""A client's cache salt reaches the runner; without one all share."""

import json

import pytest

from atomr_trio.core import BadRequest
from atomr_trio.gateway.wire import chat_generation, completion_generation, decode_chat, decode_completion


def batches(kind, **fields):
    if kind == "chat":
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
        return chat_generation(decode_chat(json.dumps(body).encode()), "x").prompts
    body = {"model": "m", "prompt": ["one", "two"], **fields}
    return completion_generation(decode_completion(json.dumps(body).encode()), "x", max_choices=4).prompts


@pytest.mark.parametrize("kind", ["chat", "plain"])
def test_the_salt_goes_with_every_prompt(kind):
    assert {batch.cache_salt for batch in batches(kind, cache_salt="tenant")} == {"tenant"}
    assert {batch.cache_salt for batch in batches(kind)} == {""}
    assert {batch.cache_salt for batch in batches(kind, cache_salt=None)} == {""}


@pytest.mark.parametrize("kind", ["chat", "plain"])
@pytest.mark.parametrize("salt", ["", "x" * 257, 5])
def test_a_salt_that_is_none_is_refused(kind, salt):
    with pytest.raises(BadRequest) as caught:
        batches(kind, cache_salt=salt)
    assert caught.value.param == "cache_salt"
