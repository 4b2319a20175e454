"""The same connection inside TLS: handshakes, the protocol that they agree on, and peers that do not get through."""

import shutil
import ssl
import subprocess

import h2.events
import pytest
import trio

from atomr_trio.gateway.driver import GuardedConnection
from atomr_trio.gateway.server import hypercorn_config
from atomr_trio.gateway.settings import ServerSettings

from .harness import Client, capturing_log, living_tasks
from .test_driver import ask_h2, make_app, next_event
from .test_protocols import h2_peer

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    made = ["-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=localhost", "-days", "2"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", *made]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def server_side(certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def client_side(certificate, *protocols):
    context = ssl.create_default_context(cafile=certificate / "cert.pem")
    context.check_hostname = False
    context.set_alpn_protocols(protocols)
    return context


async def served_once(certificate, nursery):
    """One accepted connection, with the peer's end of its socket and the log."""
    from hypercorn.app_wrappers import ASGIWrapper
    from hypercorn.trio.worker_context import WorkerContext

    log, entries = capturing_log()
    settings = ServerSettings(keep_alive_timeout=7)
    app = make_app()
    await app.startup()
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with listener:
        theirs = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        stream = trio.SSLStream(await listener.accept(), server_side(certificate), server_side=True)
    config = hypercorn_config(settings, log)
    wrapped = ASGIWrapper(app)
    connection = GuardedConnection(wrapped, config, WorkerContext(None), {}, stream, settings=settings, log=log)
    nursery.start_soon(connection.run)
    return theirs, entries


async def test_http1_inside_tls(certificate, patient_clock):
    async with trio.open_nursery() as nursery:
        theirs, entries = await served_once(certificate, nursery)
        async with Client(
            trio.SSLStream(theirs, client_side(certificate, "http/1.1"), server_hostname="localhost")
        ) as client:
            for _ in range(2):
                assert (await client.get("/")).body == b"ok"
            began = trio.current_time()
            await client.wait_closed()
            assert 6 <= trio.current_time() - began < 8
    assert entries == []


async def test_http2_inside_tls(certificate, patient_clock):
    async with trio.open_nursery() as nursery:
        theirs, entries = await served_once(certificate, nursery)
        async with Client(
            trio.SSLStream(theirs, client_side(certificate, "h2"), server_hostname="localhost")
        ) as client:
            peer = h2_peer()
            for stream in [1, 3]:
                await ask_h2(client, peer, stream, b"/")
                assert (await next_event(client, peer, h2.events.DataReceived)).data == b"ok"
                await next_event(client, peer, h2.events.StreamEnded)
            assert client.stream.selected_alpn_protocol() == "h2"
            await client.wait_closed()
    assert entries == []


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\nhost: test\r\n\r\n", b"\x16\x03\x01", b""])
async def test_a_handshake_that_fails_ends_its_connection(certificate, said, patient_clock):
    async with trio.open_nursery() as nursery:
        before = await living_tasks()
        theirs, entries = await served_once(certificate, nursery)
        async with theirs:
            if said:
                await theirs.send_all(said)
            await Client(theirs).wait_closed()
            assert await living_tasks() == before
    assert entries == []
