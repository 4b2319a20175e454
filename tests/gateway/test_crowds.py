"""Many connections at a time, and readers that stall among them."""

import json
import resource
import signal
import socket
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
import trio.testing

from atomr_trio.gateway import ServerSettings
from tests.fuzzing.campaign import target
from tests.fuzzing.requests import request

from .fakes import ScriptedBackend, say
from .harness import living_tasks, serving
from .test_app import CHAT, app_of, body_of, events_of

IDLE, ACTIVE = 500, 256


@pytest.fixture
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * (IDLE + ACTIVE) + 200
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"this machine allows {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@asynccontextmanager
async def connected(server, count):
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(await server.connect()) for _ in range(count)]


async def begin(client):
    """Ask for a stream, and read its first piece."""
    body = body_of(stream=True)
    await client.start("POST", CHAT, body)
    await client.finish(body)
    assert (await client.head()).status == 200
    return await client.piece()


async def test_a_crowd_of_connections_is_held(many_descriptors, patient_clock):
    go_on = trio.Event()
    backend = ScriptedBackend([say("a", go_on, "b")])
    async with serving(app_of(backend), ServerSettings(keep_alive_timeout=60)) as server:
        before = await living_tasks()
        async with connected(server, IDLE) as idle, connected(server, ACTIVE) as active:
            for client in idle:
                assert (await client.get("/livez")).status == 200
            for client in active:
                assert b'"a"' in await begin(client)
            assert len(backend.running) == ACTIVE
            go_on.set()
            for client in active:
                assert events_of(await client.answer_body())[-1] == "[DONE]"
            for client in idle:
                assert (await client.get("/livez")).status == 200
        assert await living_tasks() == before
    assert server.entries == []


async def test_a_stalled_reader_delays_no_other_stream(patient_clock):
    large = "x" * 16_000_000
    backend = ScriptedBackend([say("a", large, large), say("a", *[step for n in range(50) for step in (0.1, f"{n} ")])])
    app = app_of(backend)
    async with serving(app, ServerSettings(write_timeout=20)) as server, await server.connect(rcvbuf=4096) as stalled:
        await begin(stalled)
        # What it does not read is far more than the kernel takes.
        await trio.testing.wait_all_tasks_blocked(0.05)
        began = trio.current_time()
        async with await server.connect() as client:
            await begin(client)
            assert events_of(await client.answer_body())[-1] == "[DONE]"
        # The virtual clock jumps only when nothing else can happen, so it measures the waits themselves.
        assert trio.current_time() - began < 6
        assert len(backend.running) == 1
        await backend.idle.wait()
        assert trio.current_time() - began < 22
    cut = {"event": "connection cut", "reason": "the peer stopped reading", "log_level": "warning"}
    assert server.entries == [cut]


@pytest.mark.parametrize("stuck", ["in a write", "in a request", "before its request", "idle"])
async def test_a_signal_ends_the_server_whatever_its_peers_do(stuck):
    # Were one of them waited for, the process would outlive the patience of `target`.
    said = {
        "in a write": request("GET", "/openapi.json") * 400,
        "in a request": request("POST", CHAT, [("content-length", 1000)]),
        "before its request": b"GET / HT",
        "idle": request("GET", "/livez"),
    }
    async with target(write_timeout=1000, keep_alive_timeout=1000, grace=0.5, body_timeout=1000) as server:
        sock = trio.socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await sock.connect(("127.0.0.1", server.port))
        async with trio.SocketStream(sock) as stream:
            with trio.move_on_after(1):
                await stream.send_all(said[stuck])
            assert json.dumps(await server.vitals())
            server.process.send_signal(signal.SIGTERM)
            with trio.fail_after(60):
                assert await server.process.wait() == 0
