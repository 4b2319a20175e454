"""The official client, sync and async, against a real loopback server."""

import functools
import gc

import openai
import pytest
import trio
import trio.testing

from atomr_trio.core import (
    Backpressure,
    ContextLengthExceeded,
    DeploymentUnavailable,
    FinishReason,
    RateLimited,
)
from atomr_trio.gateway import GatewaySettings, create_app

from .fakes import MODEL, ScriptedBackend, say
from .harness import capturing_log, serving

# The client leaves its inner generators to the garbage collector, which Trio points out.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(openai|httpx2|httpcore2):ResourceWarning")

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture(autouse=True, scope="module")
def collect_what_the_client_left():
    yield
    gc.collect()


def app_of(backend, **settings):
    log, entries = capturing_log()
    app = create_app(backend, GatewaySettings(access_log=False, **settings), log=log, clock=lambda: 1_700_000_000.5)
    app.entries = entries
    return app


def client_of(server, **kwargs):
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, **kwargs)


async def test_chat():
    backend = ScriptedBackend()
    async with serving(app_of(backend)) as server, client_of(server) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=HI, temperature=0, seed=4, max_tokens=9)
    assert answer.choices[0].message.content == "hello world"
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (7, 3, 10)
    assert (answer.object, answer.model, answer.created) == ("chat.completion", MODEL, 1_700_000_000)
    assert answer.id == backend.submitted[0].request_id
    assert answer._request_id.startswith("req-")
    assert backend.submitted[0].sampling.seed == 4
    assert backend.submitted[0].metadata["http_request_id"] == answer._request_id
    assert backend.left_early == []


async def test_streaming_chat():
    backend = ScriptedBackend([say("hel", 0.001, "lo", 0.001, FinishReason.LENGTH)])
    async with serving(app_of(backend)) as server, client_of(server) as client:
        stream = await client.chat.completions.create(model=MODEL, messages=HI, stream=True)
        chunks = [chunk async for chunk in stream]
    assert [chunk.choices[0].delta.role for chunk in chunks] == ["assistant"] + [None] * (len(chunks) - 1)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "hello"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["length"]
    assert chunks[-1].choices[0].delta.content is None
    assert {chunk.id for chunk in chunks} == {backend.submitted[0].request_id}
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert all("usage" not in chunk.model_fields_set for chunk in chunks)


async def test_streaming_with_usage():
    async with serving(app_of(ScriptedBackend())) as server, client_of(server) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=HI, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in chunks[:-1])
    assert (chunks[-1].choices, chunks[-1].usage.completion_tokens) == ([], 3)


async def test_chat_log_probabilities():
    async with serving(app_of(ScriptedBackend([say("hé", "llo")] * 2))) as server, client_of(server) as client:
        fields = {"model": MODEL, "messages": HI, "logprobs": True, "top_logprobs": 2, "logit_bias": {"5": -100}}
        answer = await client.chat.completions.create(**fields)
        content = answer.choices[0].logprobs.content
        assert [token.token for token in content] == ["hé", "llo"]
        assert content[0].bytes == [104, 195, 169]
        assert [(other.token, other.logprob) for other in content[0].top_logprobs] == [("a", 0), ("b", -1)]
        assert answer.choices[0].logprobs.refusal is None

        stream = await client.chat.completions.create(stream=True, **fields)
        choices = [chunk.choices[0] async for chunk in stream]
    streamed = [token for choice in choices if choice.logprobs for token in choice.logprobs.content]
    assert streamed == content
    assert choices[-1].logprobs is None


async def test_completion_log_probabilities():
    async with serving(app_of(ScriptedBackend([say("hé", "llo")] * 3))) as server, client_of(server) as client:
        fields = {"model": MODEL, "prompt": "x", "presence_penalty": 1, "frequency_penalty": -1}
        answer = await client.completions.create(logprobs=1, **fields)
        told = answer.choices[0].logprobs
        assert (told.tokens, told.token_logprobs, told.text_offset) == (["hé", "llo"], [-0.5, -0.5], [0, 2])
        assert told.top_logprobs == [{"a": 0, "hé": -0.5}, {"a": 0, "llo": -0.5}]

        bare = await client.completions.create(logprobs=0, **fields)
        assert bare.choices[0].logprobs.top_logprobs == [{"hé": -0.5}, {"llo": -0.5}]

        stream = await client.completions.create(logprobs=1, stream=True, **fields)
        parts = [chunk.choices[0].logprobs async for chunk in stream]
    assert [token for part in parts if part for token in part.tokens] == told.tokens
    assert [offset for part in parts if part for offset in part.text_offset] == told.text_offset


async def test_three_choices_whole_and_streamed():
    backend = ScriptedBackend([say("a", 0.001, "b"), say("c"), say("d", FinishReason.LENGTH)] * 2)
    async with serving(app_of(backend)) as server, client_of(server) as client:
        whole = await client.chat.completions.create(model=MODEL, messages=HI, n=3, seed=10)
        stream = await client.chat.completions.create(
            model=MODEL, messages=HI, n=3, stream=True, stream_options={"include_usage": True}
        )
        texts, ends = ["", "", ""], {}
        async for chunk in stream:
            for choice in chunk.choices:
                assert choice.index not in ends
                texts[choice.index] += choice.delta.content or ""
                if choice.finish_reason:
                    ends[choice.index] = choice.finish_reason
            usage = chunk.usage
    assert [choice.message.content for choice in whole.choices] == ["ab", "c", "d"]
    assert [choice.finish_reason for choice in whole.choices] == ["stop", "stop", "length"]
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (7, 4)
    assert (texts, ends) == (["ab", "c", "d"], {0: "stop", 1: "stop", 2: "length"})
    assert (usage.prompt_tokens, usage.completion_tokens) == (7, 4)
    seeds = {batch.request_id.rpartition("-")[2]: batch.sampling.seed for batch in backend.submitted[:3]}
    assert seeds == {"0": 10, "1": 11, "2": 12}
    assert {batch.sampling.seed for batch in backend.submitted[3:]} == {None}
    assert len({batch.request_id for batch in backend.submitted}) == 6
    assert backend.left_early == []


async def test_completions():
    backend = ScriptedBackend([say("one"), say("two")])
    async with serving(app_of(backend)) as server, client_of(server) as client:
        answer = await client.completions.create(model=MODEL, prompt=["a", "b"], stop=["\n"])
        again = await client.completions.create(model=MODEL, prompt=[5, 6])
    assert [(choice.index, choice.text) for choice in answer.choices] == [(0, "one"), (1, "two")]
    assert (answer.object, answer.usage.prompt_tokens) == ("text_completion", 14)
    assert again.choices[0].text == "two"
    assert {batch.prompt for batch in backend.submitted} == {"a", "b", (5, 6)}
    assert backend.submitted[0].sampling.max_tokens == 16
    assert backend.submitted[0].sampling.stop == ("\n",)


async def test_streaming_completions():
    backend = ScriptedBackend([say("one", 0.001, " two")])
    async with serving(app_of(backend)) as server, client_of(server) as client:
        stream = await client.completions.create(
            model=MODEL, prompt="x", stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == "one two"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert chunks[-1].usage.total_tokens == 9


async def test_models():
    async with serving(app_of(ScriptedBackend())) as server, client_of(server) as client:
        listed = [model async for model in client.models.list()]
        assert [(model.id, model.owned_by) for model in listed] == [(MODEL, "atomr-trio"), ("other", "someone")]
        model = await client.models.retrieve(MODEL)
        assert (model.id, model.max_model_len, model.root, model.parent) == (MODEL, 2048, MODEL, None)
        with pytest.raises(openai.NotFoundError) as caught:
            await client.models.retrieve("org/nothing")
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


async def test_the_sync_client():
    def talk(url):
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            whole = client.chat.completions.create(model=MODEL, messages=HI)
            stream = client.chat.completions.create(model=MODEL, messages=HI, stream=True)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
            plain = client.completions.create(model=MODEL, prompt="x")
            with pytest.raises(openai.BadRequestError) as caught:
                client.chat.completions.create(model=MODEL, messages=[])
            names = [model.id for model in client.models.list()]
            return whole.choices[0].message.content, text, plain.choices[0].text, caught.value.param, names

    async with serving(app_of(ScriptedBackend())) as server:
        said = await trio.to_thread.run_sync(functools.partial(talk, server.url))
    assert said == ("hello world", "hello world", "hello world", "messages", [MODEL, "other"])


ERRORS = [
    (ContextLengthExceeded(5000, 2048), openai.BadRequestError, "context_length_exceeded", "messages"),
    (Backpressure("the queue is full", 2.5), openai.InternalServerError, "overloaded", None),
    (DeploymentUnavailable(MODEL, "loading", 3.0), openai.InternalServerError, "model_unavailable", None),
    (RateLimited("openai", 7.0), openai.RateLimitError, "rate_limit_exceeded", None),
    (RuntimeError("secret"), openai.InternalServerError, None, None),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("where", ["prepare", "submit", "first"])
@pytest.mark.parametrize(("error", "kind", "code", "param"), ERRORS)
async def test_errors_before_the_first_token_have_a_status(error, kind, code, param, where, stream):
    backend = ScriptedBackend([say(0.001, error)])
    setattr(backend, f"on_{where}", error) if where != "first" else None
    app = app_of(backend)
    async with serving(app) as server, client_of(server) as client:
        with pytest.raises(kind) as caught:
            await client.chat.completions.create(
                model=MODEL, messages=HI, stream=stream, extra_headers={"x-request-id": "mine-1"}
            )
    assert (caught.value.code, caught.value.param, caught.value.request_id) == (code, param, "mine-1")
    assert "secret" not in caught.value.message
    logged = [entry for entry in app.entries if entry["event"] == "request failed"]
    assert len(logged) == (1 if isinstance(error, RuntimeError) else 0)
    assert all(entry["request_id"] == "mine-1" for entry in logged)
    assert not backend.running


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(("error", "code"), [(Backpressure("no"), "overloaded"), (RuntimeError("secret"), None)])
async def test_an_error_in_mid_stream_is_told_once(error, code, n):
    backend = ScriptedBackend([say("hello", 0.01, error), say(60)])
    app = app_of(backend)
    async with serving(app) as server, client_of(server) as client:
        stream = await client.chat.completions.create(model=MODEL, messages=HI, stream=True, n=n)
        text = ""
        with pytest.raises(openai.APIError) as caught:
            async for chunk in stream:
                text += chunk.choices[0].delta.content or ""
        assert (text, caught.value.code, caught.value.type) == ("hello", code, "server_error")
        assert "secret" not in str(caught.value.body)
        await backend.idle.wait()
        # The connection was ended properly and serves the next request.
        assert len([model async for model in client.models.list()]) == 2
    assert not backend.running


async def test_an_unknown_model():
    async with serving(app_of(ScriptedBackend())) as server, client_of(server) as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="nothing", messages=HI)
        assert (caught.value.code, caught.value.param, caught.value.type) == (
            "model_not_found",
            "model",
            "invalid_request_error",
        )


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("first", ["", "token"])
@pytest.mark.parametrize("n", [1, 3])
async def test_a_client_that_leaves_cancels_its_request(stream, first, n):
    backend = ScriptedBackend([say(*([first] if first else []), trio.Event())])
    async with serving(app_of(backend)) as server, client_of(server) as client:
        async with trio.open_nursery() as nursery:

            async def ask():
                request = {"model": MODEL, "messages": HI, "stream": stream, "n": n}
                answer = await client.chat.completions.create(**request)
                async for _ in answer:
                    pass

            nursery.start_soon(ask)
            while len(backend.running) < n:
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        with trio.fail_after(1):
            await backend.idle.wait()
        assert len(backend.left_early) == n
        assert len([model async for model in client.models.list()]) == 2
