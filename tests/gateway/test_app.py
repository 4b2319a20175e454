"""The application over raw HTTP: shapes, headers, and what clients can get wrong."""

import json

import pytest
import trio
import trio.testing

from atomr_trio.core import Backpressure, BudgetExceeded, FinishReason
from atomr_trio.gateway import GatewaySettings, create_app

from .fakes import MODEL, ScriptedBackend, say
from .harness import capturing_log, serving

CHAT = "/v1/chat/completions"
HI = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


def app_of(backend=None, **settings):
    log, entries = capturing_log()
    settings = GatewaySettings(**{"access_log": False, **settings})
    app = create_app(backend or ScriptedBackend(), settings, log=log, clock=lambda: 1_700_000_000)
    app.entries = entries
    return app


def body_of(**fields):
    return json.dumps({**HI, **fields}).encode()


async def ask(server, method, path, body=b"", headers=()):
    async with await server.connect() as client:
        return await client.request(method, path, body, headers)


def events_of(body):
    """The data of the events of a stream, in order; comments left out."""
    blocks = [block for block in body.decode().split("\n\n") if block and not block.startswith(":")]
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    return [block.removeprefix("data: ") for block in blocks]


async def test_health():
    backend = ScriptedBackend()
    async with serving(app_of(backend)) as server:
        assert (await server.get("/livez")).status == 200
        ready = await server.get("/readyz")
        assert (ready.status, json.loads(ready.body)) == (200, {"status": "ready", "deployments": {MODEL: "serving"}})
        backend.ready = False
        for path in ["/readyz", "/health"]:
            answer = await server.get(path)
            assert (answer.status, json.loads(answer.body)["status"]) == (503, "not_ready")
            assert answer.headers["cache-control"] == "no-store"
        assert (await server.get("/livez")).status == 200


ODD_REQUESTS = [
    ("GET", "/nothing", b"", (), 404, "unknown_url"),
    ("GET", "/v1//models", b"", (), 404, "unknown_url"),
    ("GET", "/v1/models/nothing", b"", (), 404, "model_not_found"),
    ("GET", CHAT, b"", (), 405, None),
    ("DELETE", "/v1/models", b"", (), 405, None),
    ("POST", CHAT, b"", (), 400, None),
    ("POST", CHAT, b"{", (), 400, None),
    ("POST", CHAT, b"[]", (), 400, None),
    ("POST", CHAT, b"\xff\xfe", (), 400, None),
    ("POST", CHAT, b"x" * 2000, (), 413, None),
    ("POST", CHAT, body_of(), (("content-encoding", "gzip"),), 415, None),
]


@pytest.mark.parametrize(("method", "path", "body", "headers", "status", "code"), ODD_REQUESTS)
async def test_every_refusal_is_json_with_a_request_id(method, path, body, headers, status, code):
    async with serving(app_of(max_body_bytes=1000)) as server, await server.connect() as client:
        answer = await client.request(method, path, body, headers)
        error = json.loads(answer.body)["error"]
        assert (answer.status, error["code"]) == (status, code)
        assert set(error) == {"message", "type", "param", "code"}
        assert error["type"] == "invalid_request_error"
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"].startswith("req-")
        if status == 405:
            assert set(answer.headers["allow"].split(", ")) >= {"OPTIONS"}
    assert server.entries == []


@pytest.mark.parametrize("given", ["abc-123", "A.b_c:d"])
async def test_a_sane_request_id_comes_back(given):
    async with serving(app_of()) as server:
        for path in ["/livez", "/nothing"]:
            answer = await ask(server, "GET", path, headers=[("x-request-id", given)])
            assert answer.headers["x-request-id"] == given
        answer = await ask(server, "POST", CHAT, body_of(stream=True), [("x-request-id", given)])
        assert answer.headers["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, '"quoted"', "caf\u00e9".encode()])
async def test_another_request_id_does_not(given):
    async with serving(app_of()) as server:
        answer = await ask(server, "GET", "/livez", headers=[("x-request-id", given)])
        assert answer.headers["x-request-id"].startswith("req-")


async def test_head_and_options_and_trailing_slashes():
    async with serving(app_of()) as server:
        head = await ask(server, "HEAD", "/v1/models")
        assert (head.status, head.body) == (200, b"")
        options = await ask(server, "OPTIONS", CHAT)
        assert (options.status, "POST" in options.headers["allow"]) == (200, True)
        assert (await server.get("/v1/models/")).status == 200


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
async def test_the_content_type_does_not_matter(content_type):
    async with serving(app_of()) as server:
        answer = await ask(server, "POST", CHAT, body_of(), [("content-type", content_type)])
        assert json.loads(answer.body)["choices"][0]["message"]["content"] == "hello world"


async def test_a_whole_answer_has_every_required_key():
    async with serving(app_of()) as server:
        answer = json.loads((await ask(server, "POST", CHAT, body_of())).body)
    assert answer.pop("id").startswith("chatcmpl-")
    assert answer == {
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "hello world", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        "system_fingerprint": None,
    }


async def test_a_stream_ends_with_done_and_its_headers_say_do_not_buffer():
    async with serving(app_of()) as server, await server.connect() as client:
        for _ in range(2):
            answer = await client.request("POST", CHAT, body_of(stream=True))
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-store", "no")
            events = events_of(answer.body)
            assert events[-1] == "[DONE]"
            assert json.loads(events[0])["choices"][0]["delta"] == {"role": "assistant", "content": None}
            assert json.loads(events[-2])["choices"][0] == {
                "index": 0,
                "delta": {},
                "logprobs": None,
                "finish_reason": "stop",
            }


async def test_what_is_pending_leaves_in_one_write():
    # All tokens are there before the body is asked for: role, text, finish reason and end share a chunk.
    backend = ScriptedBackend([say(("a", "b", "c"))])
    async with serving(app_of(backend)) as server, await server.connect() as client:
        await client.start("POST", CHAT, body_of(stream=True))
        await client.finish(body_of(stream=True))
        await client.head()
        pieces = []
        while (piece := await client.piece()) is not None:
            pieces.append(piece)
        assert [len(events_of(piece)) for piece in pieces] == [4]


async def test_the_first_token_does_not_wait_for_the_second():
    more = trio.Event()
    backend = ScriptedBackend([say("first", more, "second")])
    async with serving(app_of(backend)) as server, await server.connect() as client:
        await client.start("POST", CHAT, body_of(stream=True))
        await client.finish(body_of(stream=True))
        assert (await client.head()).status == 200
        assert "first" in (await client.piece()).decode()
        more.set()
        rest = b""
        while (piece := await client.piece()) is not None:
            rest += piece
        assert b"second" in rest


async def test_a_silent_stream_gets_heartbeats(patient_clock):
    backend = ScriptedBackend([say("a", 25, "b")])
    async with serving(app_of(backend, heartbeat=10)) as server:
        answer = await ask(server, "POST", CHAT, body_of(stream=True))
    assert answer.body.count(b": ping\n\n") == 2
    assert [json.loads(event)["choices"][0]["delta"].get("content") for event in events_of(answer.body)[:-1]] == [
        None, "a", "b", None,
    ]  # fmt: skip


async def test_a_slow_first_token_commits_to_a_stream_at_the_first_heartbeat(patient_clock):
    backend = ScriptedBackend([say(15, Backpressure("late"))])
    async with serving(app_of(backend, heartbeat=10)) as server:
        answer = await ask(server, "POST", CHAT, body_of(stream=True))
    assert answer.status == 200
    assert answer.body.startswith(b": ping\n\n")
    assert json.loads(events_of(answer.body)[0])["error"]["code"] == "overloaded"
    assert events_of(answer.body)[1:] == ["[DONE]"]


async def test_a_body_that_comes_too_slowly(patient_clock):
    async with serving(app_of(body_timeout=3)) as server, await server.connect() as client:
        began = trio.current_time()
        await client.start("POST", CHAT, body_of())
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert await client.wait_closed() == b""
        assert 3 <= trio.current_time() - began < 4


async def test_a_body_that_is_announced_too_large_is_refused_at_once(patient_clock):
    async with serving(app_of()) as server, await server.connect() as client:
        began = trio.current_time()
        await client.raw(f"POST {CHAT} HTTP/1.1\r\nhost: test\r\ncontent-length: 999999999\r\n\r\n".encode())
        assert (await client.wait_closed()).startswith(b"HTTP/1.1 413")
        assert trio.current_time() - began < 1


async def test_a_stream_has_no_time_limit(patient_clock):
    app = app_of(ScriptedBackend([say("a", 100, "b")]))
    app.config["RESPONSE_TIMEOUT"] = 60
    async with serving(app) as server:
        assert events_of((await ask(server, "POST", CHAT, body_of(stream=True))).body)[-1] == "[DONE]"


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_has_ended_is_left_before_its_own_cancellation(n, stream):
    backend = ScriptedBackend()
    async with serving(app_of(backend)) as server:
        await ask(server, "POST", CHAT, body_of(stream=stream, n=n))
    assert backend.left_in_peace == [True] * n


async def test_an_early_refusal_leaves_the_connection_usable():
    async with serving(app_of()) as server, await server.connect() as client:
        for body in [b"{", body_of(model="nothing"), body_of(stream=True, model="nothing"), body_of(n=0), body_of()]:
            await client.start("POST", CHAT, body)
            await trio.testing.wait_all_tasks_blocked(0.01)
            await client.finish(body)
            assert (await client.answer()).status in {200, 400, 404}
        assert (await client.get("/livez")).status == 200


async def test_a_body_over_the_limit_gets_its_answer():
    async with serving(app_of(max_body_bytes=100_000)) as server, await server.connect() as client:
        body = b"x" * 1_000_000
        await client.start("POST", CHAT, body)
        await client.finish(body)
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert (await server.get("/livez")).status == 200


async def test_retry_headers():
    cases = [(Backpressure("full", 2.2), 503, "3", None), (BudgetExceeded(MODEL), 429, None, "false")]
    for error, status, retry, should in cases:
        backend = ScriptedBackend()
        backend.on_submit = error
        async with serving(app_of(backend)) as server:
            answer = await ask(server, "POST", CHAT, body_of())
        found = answer.headers.get("retry-after"), answer.headers.get("x-should-retry")
        assert (answer.status, *found) == (status, retry, should)


async def test_the_log_has_one_line_per_request_and_the_traceback_of_a_bug():
    backend = ScriptedBackend([say(RuntimeError("secret"))])
    app = app_of(backend, access_log=True)
    async with serving(app) as server:
        await ask(server, "POST", CHAT, body_of(), [("x-request-id", "mine")])
        await server.get("/livez")
    bug, failed, lively = app.entries
    assert (bug["event"], bug["request_id"], str(bug["exc_info"])) == ("request failed", "mine", "secret")
    assert failed.pop("ms") >= 0
    assert len(failed.pop("traceparent")) == 55
    assert failed == {
        "event": "request", "method": "POST", "path": CHAT, "status": 500, "request_id": "mine", "log_level": "info",
        "model": MODEL, "client": "127.0.0.1", "scheme": "http",
    }  # fmt: skip
    assert (lively["path"], lively["status"]) == ("/livez", 200)


@pytest.mark.parametrize("path", ["/v1/models", "/readyz"])
async def test_a_bug_in_the_backend_is_a_500_that_tells_nothing(path):
    class Broken(ScriptedBackend):
        async def models(self):
            raise ExceptionGroup("several", [ValueError("secret"), KeyError("other")])

        readiness = models

    app = app_of(Broken())
    async with serving(app) as server:
        answer = await server.get(path)
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["type"]) == (500, "server_error")
    assert answer.headers["x-request-id"] in error["message"]
    assert b"secret" not in answer.body
    assert [entry["event"] for entry in app.entries] == ["request failed"]


async def test_an_answer_that_names_no_reason_is_an_error():
    for steps in [[FinishReason.ERROR], [StopAsyncIteration()]]:
        app = app_of(ScriptedBackend([say("a", *steps)]))
        async with serving(app) as server:
            answer = await ask(server, "POST", CHAT, body_of())
            assert (answer.status, json.loads(answer.body)["error"]["type"]) == (500, "server_error")
            assert "the answer ended" in str(app.entries[0]["exc_info"])


async def test_too_many_choices():
    async with serving(app_of(max_choices=4)) as server:
        body = json.dumps({"model": MODEL, "prompt": ["a", "b", "c"], "n": 2}).encode()
        answer = await ask(server, "POST", "/v1/completions", body)
        assert (answer.status, json.loads(answer.body)["error"]["param"]) == (400, "prompt")


async def test_a_large_body_is_decoded_in_a_thread():
    messages = [{"role": "user", "content": "x" * 1000}] * 1000
    async with serving(app_of()) as server:
        answer = await ask(server, "POST", CHAT, body_of(messages=messages))
        # The scripted backend refuses it, after the gateway has taken it.
        assert json.loads(answer.body)["error"]["code"] == "context_length_exceeded"
        bad = await ask(server, "POST", CHAT, body_of(messages=messages, n="x"))
        assert json.loads(bad.body)["error"]["param"] == "n"
