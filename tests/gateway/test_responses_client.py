"""``/v1/responses`` through the official client, sync and async, against a real loopback server."""

import functools
import gc
import json

import openai
import pytest
import trio
import trio.testing

from atomr_trio.core import Backpressure, ContextLengthExceeded, FinishReason, RateLimited
from atomr_trio.gateway import GatewaySettings, create_app

from .fakes import MODEL, ScriptedBackend, say
from .harness import capturing_log, serving

# The client leaves its inner generators to the garbage collector, which Trio points out.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(openai|httpx2|httpcore2):ResourceWarning")

ASK = {"model": MODEL, "input": "hi"}


@pytest.fixture(autouse=True, scope="module")
def collect_what_the_client_left():
    yield
    gc.collect()


def app_of(backend, spawn=None, **settings):
    log, _ = capturing_log()
    limits = GatewaySettings(access_log=False, **settings)
    return create_app(backend, limits, log=log, clock=lambda: 1_700_000_000.5, spawn=spawn)


def client_of(server):
    return openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


async def ask(server, method, path, headers=(), **fields):
    async with await server.connect() as client:
        return await client.request(method, path, json.dumps(fields).encode() if fields else b"", headers)


async def test_a_response():
    backend = ScriptedBackend(cached=4)
    async with serving(app_of(backend)) as server, client_of(server) as client:
        response = await client.responses.create(**ASK, instructions="Be brief.", max_output_tokens=9, store=True)
    assert response.output_text == "hello world"
    assert (response.status, response.created_at, response.store) == ("completed", 1_700_000_000, False)
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (7, 3, 10)
    assert response.usage.input_tokens_details.cached_tokens == 4
    assert response.id == backend.submitted[0].request_id
    assert (response.id[:5], response.output[0].id[:4]) == ("resp_", "msg_")
    assert response._request_id.startswith("req-")
    assert [turn.text for turn in backend.submitted[0].messages] == ["Be brief.", "hi"]


async def test_a_stream_of_events():
    backend = ScriptedBackend([say("hel", 0.001, "lo", 0.001, FinishReason.LENGTH)])
    async with serving(app_of(backend)) as server, client_of(server) as client:
        events = [event async for event in await client.responses.create(**ASK, stream=True)]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "hello"
    assert (events[0].type, events[-1].type) == ("response.created", "response.incomplete")
    assert events[-1].response.incomplete_details.reason == "max_output_tokens"
    assert events[-1].response.usage.output_tokens == 2


async def test_the_stream_helper_makes_the_response_that_is_answered_whole():
    script = say("one ", 0.001, "two")
    async with serving(app_of(ScriptedBackend([script] * 2))) as server, client_of(server) as client:
        whole = await client.responses.create(**ASK)
        async with client.responses.stream(**ASK) as stream:
            async for _ in stream:
                pass
            streamed = await stream.get_final_response()
    assert streamed.output_text == whole.output_text == "one two"
    assert streamed.usage == whole.usage


async def test_a_conversation_is_gone_on_with_by_sending_all_of_it():
    backend = ScriptedBackend([say("one"), say("two")])
    async with serving(app_of(backend)) as server, client_of(server) as client:
        first = await client.responses.create(**ASK)
        said = [{"role": "user", "content": "hi"}, *(item.to_dict() for item in first.output)]
        await client.responses.create(model=MODEL, input=[*said, {"role": "user", "content": "and?"}])
    turns = [(turn.role.value, turn.text) for turn in backend.submitted[1].messages]
    assert turns == [("user", "hi"), ("assistant", "one"), ("user", "and?")]


async def test_log_probabilities():
    async with serving(app_of(ScriptedBackend([say("hé", "llo")]))) as server, client_of(server) as client:
        response = await client.responses.create(**ASK, include=["message.output_text.logprobs"], top_logprobs=1)
    tokens = response.output[0].content[0].logprobs
    assert [(token.token, token.logprob, len(token.top_logprobs)) for token in tokens] == [
        ("hé", -0.5, 1), ("llo", -0.5, 1),
    ]  # fmt: skip


async def test_counting():
    async with serving(app_of(ScriptedBackend())) as server, client_of(server) as client:
        count = await client.responses.input_tokens.count(**ASK)
    assert (count.input_tokens, count.object) == (3, "response.input_tokens")


async def test_the_sync_client():
    def talk(url):
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            whole = client.responses.create(**ASK).output_text
            stream = client.responses.create(**ASK, stream=True)
            text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
            with pytest.raises(openai.BadRequestError, match="stores none") as caught:
                client.responses.create(**ASK, previous_response_id="resp_0")
            return whole, text, caught.value.param

    async with serving(app_of(ScriptedBackend())) as server:
        said = await trio.to_thread.run_sync(functools.partial(talk, server.url))
    assert said == ("hello world", "hello world", "previous_response_id")


async def test_nothing_is_stored():
    async with serving(app_of(ScriptedBackend())) as server, client_of(server) as client:
        response = await client.responses.create(**ASK)
        for find in (
            client.responses.retrieve,
            client.responses.delete,
            client.responses.cancel,
            client.responses.input_items.list,
        ):
            with pytest.raises(openai.BadRequestError, match="stores no responses"):
                await find(response.id)


ERRORS = [
    (ContextLengthExceeded(5000, 2048), openai.BadRequestError, "context_length_exceeded", "input"),
    (Backpressure("full", 2.5), openai.InternalServerError, "overloaded", None),
    (RateLimited("openai", 7.0), openai.RateLimitError, "rate_limit_exceeded", None),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("where", ["prepare", "submit", "first"])
@pytest.mark.parametrize(("error", "kind", "code", "param"), ERRORS)
async def test_errors_before_the_first_token_have_a_status(error, kind, code, param, where, stream):
    backend = ScriptedBackend([say(0.001, error)])
    setattr(backend, f"on_{where}", error) if where != "first" else None
    async with serving(app_of(backend)) as server, client_of(server) as client:
        with pytest.raises(kind) as caught:
            await client.responses.create(**ASK, stream=stream)
    assert (caught.value.code, caught.value.param) == (code, param)
    assert not backend.running


async def test_an_error_in_mid_stream_is_a_failed_response():
    backend = ScriptedBackend([say("hello", 0.01, RuntimeError("secret"))])
    async with serving(app_of(backend)) as server, client_of(server) as client:
        events = [event async for event in await client.responses.create(**ASK, stream=True)]
        assert len([model async for model in client.models.list()]) == 2
    response = events[-1].response
    assert (events[-1].type, response.status, response.error.code) == ("response.failed", "failed", "server_error")
    assert "secret" not in response.error.message
    assert response.output_text == "hello"


async def test_a_stream_has_no_done_and_comments_in_silence(patient_clock):
    backend = ScriptedBackend([say(25, "a", 25)])
    async with serving(app_of(backend, heartbeat=10.0)) as server:
        body = (await ask(server, "POST", "/v1/responses", stream=True, **ASK)).body
    assert body.count(b": ping\n\n") == 3
    assert b"[DONE]" not in body
    assert body.startswith(b"event: response.created\n")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_cancels_its_request(stream):
    backend = ScriptedBackend([say("token", trio.Event())])
    async with serving(app_of(backend)) as server, client_of(server) as client:
        async with trio.open_nursery() as nursery:

            async def leave():
                async for _ in await client.responses.create(**ASK, stream=stream):
                    pass

            nursery.start_soon(leave)
            await backend.busy.wait()
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        with trio.fail_after(1):
            await backend.idle.wait()
        assert len(backend.left_early) == 1


async def test_a_stream_can_be_gone_on_with():
    async with trio.open_nursery() as nursery:

        def spawn(fn, *args, name=None):
            nursery.start_soon(fn, *args, name=name)

        async with serving(app_of(ScriptedBackend(), spawn, resume_window=60.0)) as server:
            answer = await ask(server, "POST", "/v1/responses", stream=True, **ASK)
            path = f"/v1/streams/{answer.headers['x-stream-id']}"
            again = await ask(server, "GET", path, [("last-event-id", "3")])
        nursery.cancel_scope.cancel()
    assert answer.headers["x-stream-id"].startswith("resp_")
    assert answer.body.endswith(again.body)
    assert again.body.startswith(b"id: 4\nevent: response.content_part.added\n")
    numbers = [json.loads(line[6:])["sequence_number"] for line in again.body.split(b"\n") if line.startswith(b"data")]
    assert numbers == list(range(3, 3 + len(numbers)))
