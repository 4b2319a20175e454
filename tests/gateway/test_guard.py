"""The ASGI wrapper, with applications that misbehave."""

import json

import pytest
import trio

from atomr_trio.gateway import GatewaySettings, Guard, serve

from .harness import capturing_log, serving


def guarded(app, **settings):
    log, entries = capturing_log()
    guard = Guard(app, GatewaySettings(**settings), log)

    # Hypercorn recognises an ASGI application by its being a coroutine function.
    async def run(scope, receive, send):
        await guard(scope, receive, send)

    return run, entries


async def lifespan(scope, receive, send):
    if scope["type"] != "lifespan":
        return False
    while True:
        event = await receive()
        await send({"type": f"{event['type']}.complete"})
        if event["type"] == "lifespan.shutdown":
            return True


async def test_an_application_that_fails_before_its_answer():
    async def app(scope, receive, send):
        if not await lifespan(scope, receive, send):
            raise ExceptionGroup("several", [ValueError("secret")])

    app, entries = guarded(app)
    async with serving(app) as server, await server.connect() as client:
        for _ in range(2):
            answer = await client.get("/")
            assert (answer.status, answer.headers["content-type"]) == (500, "application/json")
            assert b"secret" not in answer.body
    assert [entry["event"] for entry in entries] == ["request failed", "request"] * 2
    assert entries[1]["status"] == 500


async def test_the_apology_is_in_the_dialect_of_the_path():
    async def app(scope, receive, send):
        if not await lifespan(scope, receive, send):
            raise ValueError("secret")

    app, _ = guarded(app)
    async with serving(app) as server:
        answer = await server.get("/v1/messages")
    body = json.loads(answer.body)
    assert (answer.status, body["error"]["type"]) == (500, "api_error")
    assert answer.headers["request-id"] == body["request_id"]


async def test_an_application_that_fails_in_mid_answer():
    async def app(scope, receive, send):
        if not await lifespan(scope, receive, send):
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise ValueError("secret")

    app, entries = guarded(app)
    async with serving(app) as server, await server.connect() as client:
        await client.raw(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
        data = await client.wait_closed()
        # No last chunk: the client can tell that the answer is not whole.
        assert data.endswith(b"\r\nhalf\r\n")
    assert [entry["event"] for entry in entries] == ["request failed", "request"]


async def test_an_application_that_says_nothing():
    async def app(scope, receive, send):
        await lifespan(scope, receive, send)

    app, entries = guarded(app)
    async with serving(app) as server:
        assert (await server.get("/")).status == 500
    assert entries[-1]["event"] == "request"


async def test_a_client_that_leaves_before_its_answer_is_logged_as_such(patient_clock):
    started = trio.Event()

    async def app(scope, receive, send):
        if not await lifespan(scope, receive, send):
            started.set()
            while (await receive())["type"] != "http.disconnect":
                pass

    app, entries = guarded(app)
    async with serving(app) as server, await server.connect() as client:
        await client.raw(b"GET /gone?key=secret HTTP/1.1\r\nhost: test\r\n\r\n")
        await started.wait()
    assert [(entry["status"], entry["path"]) for entry in entries] == [(499, "/gone")]


async def test_a_websocket_of_another_server_is_refused():
    async def app(scope, receive, send):
        raise AssertionError

    said = []

    async def send(event):
        said.append(event["type"])

    app, entries = guarded(app)
    await app({"type": "websocket"}, None, send)
    assert (said, entries) == (["websocket.close"], [])


TARGETS = {
    b"http://test/livez?a=b": "/livez",
    b"HTTPS://test:99999/a%20b": "/a b",
    b"http://[::1": "/",
    b"http://": "/",
    b"*": "*",
    b"//x": "//x",
    b"http:/livez": None,
    b"test:443": None,
    b"?a=b": None,
    b"livez": None,
}


@pytest.mark.parametrize(("target", "path"), TARGETS.items())
async def test_the_target_of_a_request(target, path):
    seen = []

    async def app(scope, receive, send):
        if not await lifespan(scope, receive, send):
            seen.append(scope["path"])
            await receive()
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    app, entries = guarded(app)
    async with serving(app) as server, await server.connect() as client:
        await client.raw(b"GET %b HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n" % target)
        said = await client.wait_closed()
    assert seen == [path] * (path is not None)
    assert said.startswith(b"HTTP/1.1 400" if path is None else b"HTTP/1.1 204")
    assert [entry["event"] for entry in entries] == ["request"]


async def test_the_server_works_without_an_application_lifespan():
    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await receive()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with serving(app, serve=serve) as server:
        assert (await server.get("/")).status == 204
    assert [entry["log_level"] for entry in server.entries] == ["warning"]


async def test_the_applications_own_request_id_is_replaced():
    async def app(scope, receive, send):
        if not await lifespan(scope, receive, send):
            await receive()
            headers = [(b"X-Request-Id", b"other"), (b"content-length", b"0")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    app, _ = guarded(app)
    async with serving(app) as server, await server.connect() as client:
        await client.raw(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\nx-request-id: mine\r\n\r\n")
        data = await client.wait_closed()
    assert data.lower().count(b"x-request-id") == 1
    assert b"x-request-id: mine\r\n" in data
