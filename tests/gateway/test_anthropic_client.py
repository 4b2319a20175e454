"""The official `anthropic` client, sync and async, against a real loopback server."""

import functools
import gc
import json

import anthropic
import pytest
import trio
import trio.testing

from atomr_trio.core import Backpressure, BudgetExceeded, ContextLengthExceeded, FinishReason, ServerError
from atomr_trio.gateway import GatewaySettings, create_app

from .fakes import MODEL, ScriptedBackend, StopAt, say
from .harness import capturing_log, serving

# The client leaves its inner generators to the garbage collector, which Trio points out.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(anthropic|httpx2|httpcore2):ResourceWarning")

HI = [{"role": "user", "content": "hi"}]
ASK = {"model": MODEL, "max_tokens": 9, "messages": HI}


@pytest.fixture(autouse=True, scope="module")
def collect_what_the_client_left():
    yield
    gc.collect()


def app_of(backend, spawn=None, **settings):
    log, entries = capturing_log()
    app = create_app(backend, GatewaySettings(access_log=False, **settings), log=log, spawn=spawn)
    app.entries = entries
    return app


def client_of(server, **kwargs):
    return anthropic.AsyncAnthropic(base_url=server.url, api_key="none", max_retries=0, **kwargs)


async def ask(server, path, method="POST", **fields):
    async with await server.connect() as client:
        return await client.request(method, path, json.dumps(fields).encode())


async def test_a_message():
    backend = ScriptedBackend(cached=4)
    async with serving(app_of(backend)) as server, client_of(server) as client:
        message = await client.messages.create(
            **ASK, system="Be brief.", metadata={"user_id": "u"}, extra_body={"temperature": 0, "top_k": 5}
        )
    assert [(block.type, block.text) for block in message.content] == [("text", "hello world")]
    assert (message.stop_reason, message.stop_sequence, message.role, message.type) == (
        "end_turn", None, "assistant", "message",
    )  # fmt: skip
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (3, 4, 3)
    assert message.id == backend.submitted[0].request_id
    assert message.id.startswith("msg_")
    assert message._request_id.startswith("req-")
    assert backend.submitted[0].metadata["http_request_id"] == message._request_id
    assert (backend.submitted[0].sampling.temperature, backend.submitted[0].sampling.top_k) == (0, 5)
    assert [turn.text for turn in backend.submitted[0].messages] == ["Be brief.", "hi"]
    assert backend.left_early == []


async def test_a_stream_of_raw_events():
    backend = ScriptedBackend([say("hel", 0.001, "lo", 0.001, FinishReason.LENGTH)], cached=2)
    async with serving(app_of(backend)) as server, client_of(server) as client:
        events = [event async for event in await client.messages.create(**ASK, stream=True)]
    kinds = [event.type for event in events]
    assert (kinds[:2], kinds[-3:]) == (
        ["message_start", "content_block_start"], ["content_block_stop", "message_delta", "message_stop"],
    )  # fmt: skip
    assert "".join(event.delta.text for event in events[2:-3]) == "hello"
    assert (events[0].message.id, events[0].message.usage.input_tokens) == (backend.submitted[0].request_id, 3)
    assert (events[-2].delta.stop_reason, events[-2].usage.output_tokens) == ("max_tokens", 2)
    assert (events[-2].usage.input_tokens, events[-2].usage.cache_read_input_tokens) == (5, 2)


async def test_the_stream_helper_makes_the_message_that_is_answered_whole():
    script = say("one ", 0.001, "two", StopAt("###"))
    async with serving(app_of(ScriptedBackend([script] * 2))) as server, client_of(server) as client:
        whole = await client.messages.create(**ASK, stop_sequences=["###"])
        async with client.messages.stream(**ASK, stop_sequences=["###"]) as stream:
            texts = [text async for text in stream.text_stream]
            streamed = await stream.get_final_message()
    assert "".join(texts) == "one two"
    assert (whole.stop_reason, whole.stop_sequence) == ("stop_sequence", "###")
    assert whole.model_dump(exclude={"id"}) == streamed.model_dump(exclude={"id"})


async def test_an_answer_without_text_has_no_blocks():
    async with serving(app_of(ScriptedBackend([say(FinishReason.STOP)] * 2))) as server, client_of(server) as client:
        assert (await client.messages.create(**ASK)).content == []
        async with client.messages.stream(**ASK) as stream:
            assert (await stream.get_final_message()).content == []


async def test_counting():
    backend = ScriptedBackend()
    async with serving(app_of(backend)) as server, client_of(server) as client:
        count = await client.messages.count_tokens(model=MODEL, messages=HI, system="abc")
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.count_tokens(model="nothing", messages=HI)
    assert count.input_tokens == 4 + 3
    assert not backend.submitted


async def test_the_sync_client():
    def talk(url):
        with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as client:
            whole = client.messages.create(**ASK)
            with client.messages.stream(**ASK) as stream:
                text = "".join(stream.text_stream)
            with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
                client.messages.create(**{**ASK, "max_tokens": 0})
            return whole.content[0].text, text, client.messages.count_tokens(model=MODEL, messages=HI).input_tokens

    async with serving(app_of(ScriptedBackend())) as server:
        said = await trio.to_thread.run_sync(functools.partial(talk, server.url))
    assert said == ("hello world", "hello world", 3)


ERRORS = [
    (ContextLengthExceeded(5000, 2048), anthropic.BadRequestError, "invalid_request_error", 400),
    (Backpressure("the queue is full", 2.5), anthropic.InternalServerError, "overloaded_error", 529),
    (ServerError(500), anthropic.InternalServerError, "api_error", 500),
    (BudgetExceeded("m"), anthropic.APIStatusError, "billing_error", 402),
    (RuntimeError("secret"), anthropic.InternalServerError, "api_error", 500),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("where", ["prepare", "submit", "first"])
@pytest.mark.parametrize(("error", "kind", "name", "status"), ERRORS)
async def test_errors_before_the_first_token_have_a_status(error, kind, name, status, where, stream):
    backend = ScriptedBackend([say(0.001, error)])
    setattr(backend, f"on_{where}", error) if where != "first" else None
    app = app_of(backend)
    async with serving(app) as server, client_of(server) as client:
        with pytest.raises(kind) as caught:
            await client.messages.create(**ASK, stream=stream, extra_headers={"x-request-id": "mine-1"})
    assert (caught.value.status_code, caught.value.request_id) == (status, "mine-1")
    assert (caught.value.body["error"]["type"], caught.value.body["request_id"]) == (name, "mine-1")
    assert "secret" not in str(caught.value.body)
    assert len(app.entries) == (1 if isinstance(error, RuntimeError) else 0)
    assert not backend.running


@pytest.mark.parametrize(("error", "name"), [(Backpressure("no"), "overloaded_error"), (KeyError("x"), "api_error")])
async def test_an_error_in_mid_stream_is_told_once(error, name):
    backend = ScriptedBackend([say("hello", 0.01, error)])
    async with serving(app_of(backend)) as server, client_of(server) as client:
        text = ""
        with pytest.raises(anthropic.APIStatusError) as caught:
            async for event in await client.messages.create(**ASK, stream=True):
                text += event.delta.text if event.type == "content_block_delta" else ""
        assert (text, caught.value.body["error"]["type"]) == ("hello", name)
        await backend.idle.wait()
        # The connection was ended properly and serves the next request.
        assert (await client.messages.count_tokens(model=MODEL, messages=HI)).input_tokens == 3


REFUSALS = [
    ("POST", "/v1/messages", {}, 400, "invalid_request_error"),
    ("GET", "/v1/messages", {}, 405, "invalid_request_error"),
    ("POST", "/v1/messages/batches", {}, 404, "not_found_error"),
    ("POST", "/v1/messages", {**ASK, "model": "nothing"}, 404, "not_found_error"),
    ("POST", "/v1/messages", {**ASK, "padding": "x" * 2000}, 413, "request_too_large"),
    (
        "POST",
        "/v1/messages",
        {**ASK, "tools": [{"type": "bash_1", "name": "bash"}]},
        400,
        "invalid_request_error",
    ),
]


@pytest.mark.parametrize(("method", "path", "fields", "status", "name"), REFUSALS)
async def test_every_refusal_has_this_apis_shape(method, path, fields, status, name):
    async with serving(app_of(ScriptedBackend(), max_body_bytes=1000)) as server:
        answer = await ask(server, path, method, **fields)
    body = json.loads(answer.body)
    assert (answer.status, body["type"], body["error"]["type"]) == (status, "error", name)
    assert set(body["error"]) == {"type", "message"}
    assert answer.headers["request-id"] == answer.headers["x-request-id"] == body["request_id"]


async def test_a_silent_stream_gets_pings_after_its_begin(patient_clock):
    backend = ScriptedBackend([say(25, "a", 25)])
    async with serving(app_of(backend, heartbeat=10.0)) as server:
        answer = await ask(server, "/v1/messages", stream=True, **ASK)
    names = [line.removeprefix("event: ") for line in answer.body.decode().split("\n") if line.startswith("event")]
    assert names == [
        "message_start", "ping", "content_block_start", "content_block_delta", "ping", "ping",
        "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("first", ["", "token"])
async def test_a_client_that_leaves_cancels_its_request(stream, first):
    backend = ScriptedBackend([say(*([first] if first else []), trio.Event())])
    async with serving(app_of(backend)) as server, client_of(server) as client:
        async with trio.open_nursery() as nursery:

            async def leave():
                async for _ in await client.messages.create(**ASK, stream=stream):
                    pass

            nursery.start_soon(leave)
            await backend.busy.wait()
            await trio.testing.wait_all_tasks_blocked(0.01)
            nursery.cancel_scope.cancel()
        with trio.fail_after(1):
            await backend.idle.wait()
        assert len(backend.left_early) == 1


async def test_a_stream_can_be_gone_on_with(patient_clock):
    backend = ScriptedBackend([say("a", 30, "b", 0.001, "c")])
    async with trio.open_nursery() as nursery:

        def spawn(fn, *args, name=None):
            nursery.start_soon(fn, *args, name=name)

        async with serving(app_of(backend, spawn, resume_window=60.0, heartbeat=10.0)) as server:
            async with await server.connect() as client:
                body = json.dumps({**ASK, "stream": True}).encode()
                await client.start("POST", "/v1/messages", body)
                await client.finish(body)
                head = await client.head()
                first = (await client.piece()).decode()
            async with await server.connect() as client:
                again = [("last-event-id", "2")]
                path = f"/v1/streams/{head.headers['x-stream-id']}"
                rest = (await client.request("GET", path, headers=again)).body.decode()
        nursery.cancel_scope.cancel()
    assert head.headers["x-stream-id"].startswith("msg_")
    assert first.startswith("id: 1\nevent: message_start\n")
    assert rest.startswith("id: 3\nevent: content_block_delta\n")
    assert "event: ping\ndata: {" in rest
    assert rest.rstrip().endswith('"type":"message_stop"}')
    numbers = [int(line.removeprefix("id: ")) for line in rest.split("\n") if line.startswith("id: ")]
    assert numbers == list(range(3, 3 + len(numbers)))
