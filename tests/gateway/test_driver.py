"""What a peer can do to a connection. Each of the first five ends, hangs or leaks the stock driver."""

import contextlib
import importlib.metadata
import inspect
import socket

import h2.config
import h2.connection
import h2.events
import hypercorn.config
import hypercorn.protocol
import hypercorn.trio.lifespan
import hypercorn.trio.tcp_server
import hypercorn.trio.worker_context
import pytest
import trio
import trio.testing
from hypercorn.events import RawData
from quart_trio import QuartTrio

from atomr_trio.gateway.driver import GuardedConnection
from atomr_trio.gateway.guard import Guard
from atomr_trio.gateway.settings import GatewaySettings, ServerSettings

from .harness import capturing_log, living_tasks, serving

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def make_app(settings=None):
    """A Quart app with a plain route and one that sends for ever; and what happened in the latter."""
    app = QuartTrio("test", static_folder=None)
    app.config["RESPONSE_TIMEOUT"] = None
    app.ended = trio.Event()
    app.started = trio.Event()

    @app.get("/")
    async def ok():
        return "ok"

    @app.get("/endless")
    async def endless():
        async def body():
            try:
                while True:
                    app.started.set()
                    yield b"x" * 65536
            finally:
                app.ended.set()

        return body(), 200

    @app.get("/silent")
    async def silent():
        app.started.set()
        try:
            await trio.sleep_forever()
        finally:
            app.ended.set()

    @app.post("/echo")
    async def echo():
        from quart import request

        return await request.get_data()

    log, app.entries = capturing_log()
    app.asgi_app = Guard(app.asgi_app, settings or GatewaySettings(access_log=False), log)
    return app


# A: an exception in one connection.


async def test_a_websocket_upgrade_with_a_trailing_byte_ends_only_its_connection():
    async with serving(make_app()) as server:
        async with await server.connect() as client:
            await client.raw(UPGRADE + b"\x00")
            await client.wait_closed()
        assert (await server.get()).body == b"ok"


async def test_an_h2_path_that_is_not_ascii_ends_only_its_stream():
    async with serving(make_app()) as server, await server.connect() as client:
        peer = await send_h2(client, path=b"/caf\xc3\xa9")
        assert isinstance(await next_event(client, peer, h2.events.StreamReset), h2.events.StreamReset)
        await ask_h2(client, peer, 3, b"/")
        assert (await next_event(client, peer, h2.events.DataReceived)).data == b"ok"
    assert server.entries == []


async def next_event(client, peer, kind):
    """The next event of this kind; it fails if the connection ends before."""
    while True:
        data = await client.stream.receive_some(65536)
        assert data
        events = peer.receive_data(data)
        await client.raw(peer.data_to_send())
        for event in events:
            if isinstance(event, kind):
                return event


async def ask_h2(client, peer, stream, path, method=b"GET", end=True, extra=()):
    headers = [(b":method", method), (b":scheme", b"http"), (b":authority", b"test"), (b":path", path), *extra]
    peer.send_headers(stream, headers, end_stream=end)
    await client.raw(peer.data_to_send())


async def send_h2(client, path):
    peer = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
    peer.initiate_connection()
    await ask_h2(client, peer, 1, path)
    return peer


# B: a peer that does not read.


async def test_a_peer_that_does_not_read_is_cut_at_the_write_deadline(patient_clock):
    app = make_app()
    async with (
        serving(app, ServerSettings(write_timeout=3, grace=60)) as server,
        await server.connect(rcvbuf=4096) as client,
    ):
        await client.start("GET", "/endless")
        await app.ended.wait()
        assert (await server.get()).body == b"ok"
        server.stop()
        await server.stopped.wait()
    assert {"event": "connection cut", "reason": "the peer stopped reading", "log_level": "warning"} in server.entries


async def test_a_peer_that_does_not_read_delays_the_exit_by_the_grace_at_most(patient_clock):
    app = make_app()
    began = trio.current_time()
    async with (
        serving(app, ServerSettings(write_timeout=1000, grace=5)) as server,
        await server.connect(rcvbuf=4096) as client,
    ):
        await client.start("GET", "/endless")
        await app.started.wait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        server.stop()
        await server.stopped.wait()
    # The virtual clock jumps only when nothing else can happen, so it measures the waits themselves.
    assert trio.current_time() - began < 6
    assert "connections cut" in [entry["event"] for entry in server.entries]


async def test_cancelling_the_server_frees_a_stuck_write(patient_clock):
    app = make_app()
    began = trio.current_time()
    async with contextlib.AsyncExitStack() as clients:
        with trio.CancelScope() as scope:
            async with serving(app, ServerSettings(write_timeout=1000)) as server:
                # The client outlives the server: were it closed first, that would free the write.
                client = await clients.enter_async_context(await server.connect(rcvbuf=4096))
                await client.start("GET", "/endless")
                await app.started.wait()
                await trio.testing.wait_all_tasks_blocked(0.01)
                scope.cancel()
        assert app.ended.is_set()
        assert trio.current_time() - began < 1


async def test_a_slow_reader_is_not_cut_while_it_makes_progress(patient_clock):
    app = QuartTrio("test", static_folder=None)
    size = 4 * 1024 * 1024

    @app.get("/large")
    async def large():
        return b"x" * size

    async with serving(app, ServerSettings(write_timeout=3)) as server, await server.connect(rcvbuf=4096) as client:
        await client.start("GET", "/large")
        await client.finish()
        await client.head()
        received = 0
        while received < size:
            # Slower than the deadline for the whole, faster than the deadline for a piece.
            if received % (256 * 1024) < 4096:
                await trio.sleep(1)
            received += len(await client.piece())
    assert server.entries == []


async def test_a_peer_that_resets_in_mid_answer_ends_its_request(patient_clock):
    app = make_app()
    began = trio.current_time()
    async with serving(app) as server:
        async with await server.connect(rcvbuf=4096) as client:
            await client.start("GET", "/endless")
            await app.started.wait()
            # Closing with unread input makes the kernel send a reset.
            await client.stream.receive_some(1)
        await app.ended.wait()
    assert trio.current_time() - began < 1
    assert server.entries == []


async def test_a_peer_that_was_cut_is_reset(patient_clock):
    # Else the kernel would go on offering it megabytes.
    app = make_app()
    async with (
        serving(app, ServerSettings(write_timeout=3)) as server,
        await server.connect(rcvbuf=4096) as client,
    ):
        await client.start("GET", "/endless")
        await app.ended.wait()
        with pytest.raises(trio.BrokenResourceError):
            while await client.stream.receive_some(65536):
                pass


async def test_a_cancelled_request_leaves_no_torn_write(patient_clock):
    ours, theirs = socket.socketpair()
    size = 4 * 1024 * 1024
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    log, _ = capturing_log()
    connection = GuardedConnection(None, None, None, {}, stream, settings=ServerSettings(), log=log)
    async with (
        stream,
        trio.SocketStream(trio.socket.from_stdlib_socket(theirs)) as peer,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(connection.protocol_send, RawData(b"x" * size))
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            received = 0
            while received < size:
                received += len(await peer.receive_some(65536))


# C: the keep-alive timer.


async def test_an_idle_connection_is_closed_after_a_response(patient_clock):
    async with serving(make_app(), ServerSettings(keep_alive_timeout=7)) as server, await server.connect() as client:
        assert (await client.get("/")).status == 200
        began = trio.current_time()
        assert await client.wait_closed() == b""
        assert 7 <= trio.current_time() - began < 8


async def test_an_idle_connection_does_not_delay_the_exit(patient_clock):
    async with serving(make_app(), ServerSettings(grace=60)) as server, await server.connect() as client:
        assert (await client.get("/")).status == 200
        began = trio.current_time()
        server.stop()
        await server.stopped.wait()
        assert trio.current_time() - began < 1
        assert await client.wait_closed() == b""


async def test_headers_that_never_end_are_cut(patient_clock):
    async with serving(make_app(), ServerSettings(keep_alive_timeout=7)) as server, await server.connect() as client:
        await client.raw(b"GET / HTTP/1.1\r\nhost: te")
        assert await client.wait_closed() == b""


# D and E: who leaves, is noticed.


@pytest.mark.parametrize("ahead", [b"", b"GET / HTTP/1.1\r\nhost: test\r\n\r\n"], ids=["alone", "pipelined"])
async def test_a_peer_that_leaves_cancels_its_request(ahead, patient_clock):
    app = make_app()
    async with serving(app) as server:
        async with await server.connect() as client:
            await client.raw(b"GET /silent HTTP/1.1\r\nhost: test\r\n\r\n" + ahead)
            await app.started.wait()
            began = trio.current_time()
        await app.ended.wait()
        server.stop()
        await server.stopped.wait()
        assert trio.current_time() - began < 1


async def test_pipelined_requests_are_answered_in_order():
    async with serving(make_app()) as server, await server.connect() as client:
        post = b"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 1\r\n\r\n"
        await client.raw(
            post + b"a" + post + b"b" + post + b"c" + b"GET / HTTP/1.1\r\nconnection: close\r\nhost: test\r\n\r\n"
        )
        data = await client.wait_closed()
    assert [data[data.index(b"\r\n\r\n", at) + 4 :][:1] for at in find_all(data, b"HTTP/1.1 200")] == [
        b"a",
        b"b",
        b"c",
        b"o",
    ]


def find_all(data, what):
    at = -1
    while (at := data.find(what, at + 1)) >= 0:
        yield at


@pytest.mark.parametrize("first", ["answered", "silent", "pipelined", "half a request", "nothing"])
async def test_a_peer_that_leaves_leaves_nothing_behind(first, patient_clock):
    app = make_app()
    began = trio.current_time()
    async with serving(app) as server:
        before = await living_tasks()
        async with await server.connect() as client:
            if first == "answered":
                assert (await client.get("/")).status == 200
            elif first in {"silent", "pipelined"}:
                await client.raw(b"GET /silent HTTP/1.1\r\nhost: test\r\n\r\n")
                await client.raw(b"GET / HTTP/1.1\r\n" if first == "pipelined" else b"")
            elif first == "half a request":
                await client.raw(b"POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nab")
            assert await living_tasks() > before
        assert await living_tasks() == before
        assert trio.current_time() - began < 1


async def test_an_application_that_ignores_the_end_does_not_keep_the_connection(patient_clock):
    go_on = trio.Event()

    async def stubborn(scope, receive, send):
        assert scope["type"] == "http"
        await go_on.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with serving(stubborn) as server:
        before = await living_tasks()
        async with await server.connect() as client:
            await client.raw(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n")
            await living_tasks()
        began = trio.current_time()
        go_on.set()
        assert await living_tasks() == before
        assert trio.current_time() - began < 1


# The end of a connection: our side first, then a moment for the peer.


async def test_our_side_ends_with_the_last_answer(patient_clock):
    async with serving(make_app(), ServerSettings(linger=5)) as server, await server.connect() as client:
        began = trio.current_time()
        await client.raw(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
        assert (await client.wait_closed()).endswith(b"ok")
        assert trio.current_time() - began < 1


async def test_a_peer_that_does_not_end_its_side_gets_no_more_than_a_moment(patient_clock):
    async with serving(make_app(), ServerSettings(linger=5)) as server:
        before = await living_tasks()
        async with await server.connect() as client:
            await client.raw(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n")
            await client.wait_closed()
            await client.raw(b"more" * 1000)
            await trio.sleep(4)
            assert await living_tasks() > before
            await trio.sleep(2)
            assert await living_tasks() == before
    assert server.entries == []


# I: answers before the body.


@pytest.mark.parametrize(("method", "path", "status"), [("POST", "/nothing", 404), ("POST", "/", 405)])
async def test_an_early_answer_leaves_the_connection_usable(method, path, status):
    async with serving(make_app()) as server, await server.connect() as client:
        for _ in range(3):
            await client.start(method, path, b"four")
            await trio.testing.wait_all_tasks_blocked(0.01)
            await client.finish(b"four")
            assert (await client.answer()).status == status
        assert (await client.get("/")).body == b"ok"


async def test_a_body_that_does_not_come_gets_its_answer_and_the_connection_closes(patient_clock):
    async with (
        serving(make_app(GatewaySettings(drain_timeout=2, access_log=False))) as server,
        await server.connect() as client,
    ):
        await client.start("POST", "/nothing", b"four")
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (404, "close")
        assert b"<title>404" in answer.body
        await client.wait_closed()


async def test_a_body_that_has_no_end_gets_its_answer(patient_clock):
    app = make_app(GatewaySettings(max_body_bytes=1000, drain_timeout=30, access_log=False))
    async with serving(app) as server, await server.connect() as client:
        began = trio.current_time()
        await client.raw(b"POST /nothing HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(20):
            await client.raw(b"40\r\n" + b"x" * 64 + b"\r\n")
        assert (await client.wait_closed()).startswith(b"HTTP/1.1 404")
        assert trio.current_time() - began < 5


async def test_a_peer_that_sends_on_after_the_answer_still_gets_it(patient_clock):
    app = make_app(GatewaySettings(max_body_bytes=1000, access_log=False))
    app.config["MAX_CONTENT_LENGTH"] = 1000
    body = b"x" * 8_000_000
    async with serving(app) as server, await server.connect() as client:
        await client.start("POST", "/echo", body)
        with trio.move_on_after(60):
            for at in range(0, len(body), 65536):
                await client.raw(body[at : at + 65536])
        answer = await client.head()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        await client.wait_closed()
        assert (await server.get()).body == b"ok"


# HTTP/2 goes through the same driver.


async def test_h2_serves_a_request():
    async with serving(make_app()) as server, await server.connect() as client:
        peer = await send_h2(client, path=b"/")
        body = b""
        while True:
            events = peer.receive_data(await client.stream.receive_some(65536))
            body += b"".join(event.data for event in events if isinstance(event, h2.events.DataReceived))
            if any(isinstance(event, h2.events.StreamEnded) for event in events):
                break
            await client.raw(peer.data_to_send())
        assert body == b"ok"


async def test_a_server_that_stops_refuses_connections():
    async with serving(make_app()) as server:
        server.stop()
        await server.stopped.wait()
        with pytest.raises(OSError, match=r"refused|reset"):
            await server.connect()


# What we lean on in Hypercorn that is not public. A red test here means: read the new version before using it.


def parameters(function):
    return list(inspect.signature(function).parameters)


def test_the_parts_of_hypercorn_that_the_driver_leans_on_are_as_they_were():
    server = hypercorn.trio.tcp_server.TCPServer
    assert parameters(server) == ["app", "config", "context", "state", "stream"]
    own = {name for name, value in vars(server).items() if inspect.isfunction(value)}
    assert own == {
        "__init__", "__await__", "run", "protocol_send", "_read_data", "_close", "_idle_timeout",
        "_initiate_server_close",
    }  # fmt: skip
    source = inspect.getsource(server)
    for used in ["self.send_lock = trio.Lock()", "self._task_group = task_group"]:
        assert used in source
    for called in ["self.protocol_send,", "await self._read_data()", "await self._close()"]:
        assert called in source
    assert parameters(hypercorn.protocol.ProtocolWrapper.handle) == ["self", "event"]
    assert parameters(hypercorn.trio.worker_context.WorkerContext) == ["max_requests"]
    assert parameters(hypercorn.trio.lifespan.Lifespan) == ["app", "config", "state"]
    for name in ["handle_lifespan", "wait_for_startup", "wait_for_shutdown"]:
        assert inspect.iscoroutinefunction(getattr(hypercorn.trio.lifespan.Lifespan, name))
    assert importlib.metadata.version("hypercorn").startswith("0.18.")
    assert {"RawData", "Closed", "Updated"} <= set(vars(hypercorn.events))
