"""Any server with the OpenAI API as a target: what it streams is counted right, what it does wrong is typed."""

import json
from contextlib import asynccontextmanager

import httpx2
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.cli._bench_url import Remote, UrlTarget, open_url
from atomr_trio.cli._bench_wire import Event, base_url, error_of_status, read_event, request_body
from atomr_trio.core import (
    BadRequest,
    Forbidden,
    InferenceError,
    NetworkError,
    RateLimited,
    ServerError,
    Timeout,
    Unauthorized,
)


def text(piece, finish=None):
    return {"choices": [{"index": 0, "text": piece, "finish_reason": finish}]}


def delta(finish=None, **fields):
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def usage(prompt, completion, **details):
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion, **details}}


def lines(*objects, done=True):
    return [f"data: {json.dumps(each)}" for each in objects] + (["data: [DONE]"] if done else [])


class Script(httpx2.AsyncByteStream):
    """A body whose events come a second apart."""

    def __init__(self, lines):
        self.lines = lines

    async def __aiter__(self):
        for line in self.lines:
            await trio.sleep(1)
            yield f"{line}\n\n".encode()


@asynccontextmanager
async def serving(answer, **remote):
    """A target whose server answers by this function of the request."""
    values = {"url": "http://server", "model": "m", **remote}
    transport = httpx2.MockTransport(answer)
    async with httpx2.AsyncClient(transport=transport, base_url="http://server/v1/") as client:
        yield UrlTarget(client, Remote(**values), "m")


def streaming(*objects, done=True):
    return lambda _request: httpx2.Response(200, stream=Script(lines(*objects, done=done)))


async def ask(answer, prompt=(1, 2, 3), **remote):
    async with serving(answer, **remote) as target:
        return await target.ask(prompt)


async def test_tokens_are_the_servers_count_and_times_are_the_chunks(autojump_clock):
    sample = await ask(
        streaming(text("a b c"), text("d"), text("", "length"), usage(3, 8, prompt_tokens_details={"cached_tokens": 2}))
    )
    assert (sample.prompt_tokens, sample.output_tokens, sample.cached_tokens, sample.exact) == (3, 8, 2, True)
    assert sample.ttft == pytest.approx(1)
    assert len(sample.chunks) == 2
    # The last chunk of the answer, though it brought nothing, ended it; the usage came later.
    assert sample.latency == pytest.approx(3)


async def test_a_chat_begins_with_its_first_token_and_not_with_its_role(autojump_clock):
    sample = await ask(
        streaming(delta(role="assistant", content=""), delta(content="Hi"), delta("stop"), usage(5, 2)),
        prompt="hello",
        endpoint="chat",
    )
    assert sample.ttft == pytest.approx(2)
    assert len(sample.chunks) == 1


async def test_without_usage_chunks_are_counted_and_it_is_said(autojump_clock):
    sample = await ask(streaming(text("a"), text("b", "stop")))
    assert (sample.prompt_tokens, sample.output_tokens, sample.exact) == (3, 2, False)


async def test_a_stream_that_fails_in_the_middle(autojump_clock):
    with pytest.raises(ServerError, match="500"):
        await ask(streaming(text("a"), {"error": {"message": "it died"}}))


async def test_a_stream_that_is_not_one_of_this_api(autojump_clock):
    with pytest.raises(NetworkError, match="not one of the OpenAI API"):
        await ask(streaming(text("a"), ["what", "is", "this"]))


async def test_a_server_that_is_silent(autojump_clock):
    with pytest.raises(Timeout) as caught:
        await ask(streaming(*[text("a")] * 10), timeout=4.5)
    assert caught.value.elapsed_ms == 4500


async def test_a_server_that_is_not_there():
    async with open_url(Remote(url="http://127.0.0.1:1", model="m", timeout=10)) as target:
        with pytest.raises(NetworkError, match="cannot be reached"):
            await target.ask((1, 2))


async def test_an_address_that_is_none():
    with pytest.raises(InferenceError):
        async with open_url(Remote(url="nowhere")) as target:
            await target.ask((1, 2))


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, BadRequest), (401, Unauthorized), (403, Forbidden), (404, BadRequest), (503, ServerError)],
)
async def test_refusals_are_typed(status, error):
    body = {"error": {"message": "not like this"}}
    with pytest.raises(error) as caught:
        await ask(lambda _request: httpx2.Response(status, json=body))
    assert "not like this" in (str(caught.value) + str(getattr(caught.value, "body", "")))


async def test_what_is_asked_for():
    asked = []

    def answer(request):
        asked.append((request.url.path, json.loads(request.content)))
        return httpx2.Response(200, stream=httpx2.ByteStream(b"data: [DONE]\n\n"))

    await ask(answer, output_tokens=7)
    await ask(answer, prompt="hello", endpoint="chat", ignore_eos=False)
    (path, completion), (chat_path, chat) = asked
    assert (path, chat_path) == ("/v1/completions", "/v1/chat/completions")
    assert completion["prompt"] == [1, 2, 3]
    assert (completion["max_tokens"], completion["ignore_eos"], completion["temperature"]) == (7, True, 0)
    assert completion["stream_options"] == {"include_usage": True}
    assert chat["messages"] == [{"role": "user", "content": "hello"}]
    assert "ignore_eos" not in chat


# --- the pure part


@given(st.text(), st.booleans())
def test_any_line_is_an_event(line, as_data):
    assert isinstance(read_event(f"data: {line}" if as_data else line), Event)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["choices", "delta", "usage", "error", "text", "role", "x"]), inner)
        ),
        max_leaves=8,
    )
)
def test_any_object_is_an_event(found):
    event = read_event(f"data:{json.dumps(found)}")
    assert event.failure is None or not event.news


@given(st.integers(300, 599), st.binary(max_size=50), st.none() | st.text(max_size=5))
def test_any_refusal_has_an_error_that_can_be_shown(status, body, retry_after):
    assert str(error_of_status(status, body, retry_after))


def test_a_rate_limit_says_when_to_come_again():
    assert error_of_status(429, b"", "7").to_dict() == RateLimited("the server", 7.0).to_dict()
    assert error_of_status(429, b"", "Wed, 21 Oct").to_dict() == RateLimited("the server", None).to_dict()


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://h:1", "http://h:1/v1/"),
        ("http://h:1/", "http://h:1/v1/"),
        ("http://h:1/v1", "http://h:1/v1/"),
        ("http://h/api/openai/", "http://h/api/openai/"),
    ],
)
def test_where_the_api_begins(url, base):
    assert base_url(url) == base


def test_a_body_is_json():
    assert json.loads(request_body("completions", "m", "text", 3, ignore_eos=True))["prompt"] == "text"
