"""What a peer can do to Hypercorn's protocols. Each of these ends, hangs or leaks something with the stock classes."""

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest
import trio

from atomr_trio.gateway.settings import GatewaySettings, ServerSettings

from .harness import living_tasks, serving
from .test_driver import UPGRADE, ask_h2, make_app, next_event


def h2_peer(window=65_535):
    config = h2.config.H2Configuration(
        header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
    )
    peer = h2.connection.H2Connection(config)
    values = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
    peer.local_settings = h2.settings.Settings(client=True, initial_values=values)
    peer.initiate_connection()
    return peer


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


async def answer_of(client, peer, stream, path=b"/"):
    await ask_h2(client, peer, stream, path)
    return (await next_event(client, peer, h2.events.DataReceived)).data


# Upgrades are not followed: the answer is that of plain HTTP/1.1.


@pytest.mark.parametrize("after", [b"", b"\x00", b"\x81\x85\x00\x00\x00\x00hello"])
async def test_a_websocket_handshake_is_a_request_like_any_other(after):
    async with serving(make_app()) as server, await server.connect() as client:
        await client.raw(UPGRADE.replace(b"/ws", b"/") + after)
        answer = await client.stream.receive_some(65536)
        assert answer.startswith(b"HTTP/1.1 200")
    assert server.entries == []


@pytest.mark.parametrize("settings", [b"AAMAAABk", b"AAM", b"?", b""])
async def test_an_upgrade_to_h2c_is_not_followed(settings):
    async with serving(make_app()) as server, await server.connect() as client:
        headers = [("connection", "upgrade, http2-settings"), ("upgrade", "h2c"), ("http2-settings", settings)]
        assert (await client.request("GET", "/", headers=headers)).body == b"ok"
        assert (await client.get("/")).body == b"ok"
    assert server.entries == []


async def test_an_h2_preface_with_headers_in_it():
    async with serving(make_app()) as server, await server.connect() as client:
        peer = h2_peer()
        hello = peer.data_to_send().replace(b"PRI * HTTP/2.0\r\n", b"PRI * HTTP/2.0\r\nhost: x\r\nupgrade: h2c\r\n", 1)
        await client.raw(hello)
        assert await answer_of(client, peer, 1) == b"ok"
    assert server.entries == []


@pytest.mark.parametrize("method", [b"head", b"Head", b"get", b"connect"])
async def test_a_method_in_lower_case_is_none(method):
    async with serving(make_app()) as server, await server.connect() as client:
        await client.raw(method + b" / HTTP/1.1\r\nhost: test\r\n\r\nGET / HTTP/1.1\r\nhost: test\r\n\r\n")
        said = await client.wait_closed()
        assert said.startswith(b"HTTP/1.1 400")
        assert said.count(b"HTTP/1.1") == 1
        assert (await server.get()).body == b"ok"
    assert server.entries == []


# One stream's trouble is not the others'.


@pytest.mark.parametrize(
    ("method", "path", "extra"),
    [
        (b"GET", b"/caf\xc3\xa9", ()),
        (b"GET", b"/a b", ()),
        (b"G\xffT", b"/", ()),
        (b"G T", b"/", ()),
        (b"head", b"/", ()),
        (b"CONNECT", b"/", ((b":protocol", b"websocket"),)),
    ],
)
async def test_a_request_that_makes_no_sense_ends_only_its_stream(method, path, extra):
    async with serving(make_app()) as server, await server.connect() as client:
        peer = h2_peer()
        headers = [(b":method", method), (b":scheme", b"http"), (b":authority", b"test"), (b":path", path)]
        peer.send_headers(1, [*extra, *headers], end_stream=True)
        await client.raw(peer.data_to_send())
        reset = await next_event(client, peer, h2.events.StreamReset)
        assert (reset.stream_id, reset.error_code) == (1, h2.errors.ErrorCodes.PROTOCOL_ERROR)
        assert await answer_of(client, peer, 3) == b"ok"
    assert server.entries == []


async def test_a_tunnel_is_refused():
    async with serving(make_app()) as server, await server.connect() as client:
        peer = h2_peer()
        peer.send_headers(1, [(b":method", b"CONNECT"), (b":authority", b"test:443")])
        await client.raw(peer.data_to_send())
        assert (await next_event(client, peer, h2.events.StreamReset)).stream_id == 1
        assert await answer_of(client, peer, 3) == b"ok"
    assert server.entries == []


async def test_the_rest_of_a_body_that_is_too_large_does_not_end_the_other_streams(patient_clock):
    app = make_app(GatewaySettings(max_body_bytes=1000, access_log=False))
    app.config["MAX_CONTENT_LENGTH"] = 1000
    async with serving(app) as server, await server.connect() as client:
        peer = h2_peer()
        await client.raw(peer.data_to_send())
        await ask_h2(client, peer, 1, b"/silent")
        await app.started.wait()
        await ask_h2(client, peer, 3, b"/echo", method=b"POST", end=False)
        peer.send_data(3, b"x" * 2000)
        await client.raw(peer.data_to_send())
        ended = await next_event(client, peer, h2.events.StreamEnded)
        assert ended.stream_id == 3
        for _ in range(20):
            # More than the connection's window, if none of it were given back.
            await client.raw(frame(0, 0, 3, b"x" * 8000))
        assert await answer_of(client, peer, 5) == b"ok"
        assert not app.ended.is_set()
    assert server.entries == []


async def test_a_flood_of_priorities_does_nothing():
    async with serving(make_app()) as server, await server.connect() as client:
        peer = h2_peer()
        flood = [frame(2, 0, 2 * number + 1, bytes(4) + b"\x10") for number in range(3000)]
        await client.raw(peer.data_to_send() + b"".join(flood))
        assert await answer_of(client, peer, 7001) == b"ok"
    assert server.entries == []


# Nothing waits for ever.


@pytest.mark.parametrize("frames", [b"", frame(6, 0, 0, b"12345678"), frame(4, 0, 0, b"")])
async def test_a_client_that_says_no_more_than_hello_is_idle(frames, patient_clock):
    async with serving(make_app(), ServerSettings(keep_alive_timeout=7)) as server, await server.connect() as client:
        began = trio.current_time()
        await client.raw(h2_peer().data_to_send() + frames)
        await client.wait_closed()
        assert 7 <= trio.current_time() - began < 8


async def test_pings_do_not_keep_a_connection(patient_clock):
    async with serving(make_app(), ServerSettings(keep_alive_timeout=7)) as server, await server.connect() as client:
        began = trio.current_time()
        peer = h2_peer()
        await client.raw(peer.data_to_send())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ping_for_ever, client)
            with trio.fail_after(60):
                await client.wait_closed()
            assert 7 <= trio.current_time() - began < 8
            nursery.cancel_scope.cancel()


async def ping_for_ever(client):
    while True:
        try:
            await client.raw(frame(6, 0, 0, b"12345678"))
        except trio.BrokenResourceError:
            return
        await trio.sleep(1)


async def test_a_connection_whose_client_reset_its_stream_is_idle(patient_clock):
    app = make_app()
    async with serving(app, ServerSettings(keep_alive_timeout=7)) as server, await server.connect() as client:
        peer = h2_peer()
        await client.raw(peer.data_to_send())
        await ask_h2(client, peer, 1, b"/silent")
        await app.started.wait()
        peer.reset_stream(1)
        await client.raw(peer.data_to_send())
        await app.ended.wait()
        began = trio.current_time()
        await client.wait_closed()
        assert 6 <= trio.current_time() - began < 8


async def test_a_connection_with_a_stream_is_not_idle(patient_clock):
    app = make_app()
    async with serving(app, ServerSettings(keep_alive_timeout=7)) as server, await server.connect() as client:
        peer = h2_peer()
        await client.raw(peer.data_to_send())
        await ask_h2(client, peer, 1, b"/silent")
        await app.started.wait()
        await trio.sleep(30)
        assert await answer_of(client, peer, 3) == b"ok"


@pytest.mark.parametrize("window", [0, 1000])
async def test_a_stream_whose_client_leaves_no_room_ends_at_the_write_deadline(window, patient_clock):
    app = make_app()
    began = trio.current_time()
    settings = ServerSettings(write_timeout=3, keep_alive_timeout=60)
    async with serving(app, settings) as server, await server.connect() as client:
        peer = h2_peer(window)
        await client.raw(peer.data_to_send())
        await ask_h2(client, peer, 1, b"/endless")
        # The client reads all the while, and makes no room.
        reset = await next_event(client, peer, h2.events.StreamReset)
        assert (reset.stream_id, reset.error_code) == (1, h2.errors.ErrorCodes.CANCEL)
        await app.ended.wait()
        assert 3 <= trio.current_time() - began < 4
        peer.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1000})
        assert await answer_of(client, peer, 3) == b"ok"
    assert server.entries == []


async def test_a_stream_that_makes_progress_goes_on(patient_clock):
    app = make_app()
    async with serving(app, ServerSettings(write_timeout=3)) as server, await server.connect() as client:
        peer = h2_peer(0)
        await client.raw(peer.data_to_send())
        await ask_h2(client, peer, 1, b"/endless")
        for _ in range(20):
            # Slower than the deadline for the whole, faster than the deadline for a piece.
            await trio.sleep(2)
            peer.increment_flow_control_window(1000, 1)
            await client.raw(peer.data_to_send())
            await next_event(client, peer, h2.events.DataReceived)
        assert not app.ended.is_set()
        peer.reset_stream(1)
        await client.raw(peer.data_to_send())
        await app.ended.wait()


async def test_an_h2_client_that_leaves_leaves_nothing_behind(patient_clock):
    app = make_app()
    async with serving(app) as server:
        before = await living_tasks()
        async with await server.connect() as client:
            peer = h2_peer(0)
            await client.raw(peer.data_to_send())
            await ask_h2(client, peer, 1, b"/endless")
            await ask_h2(client, peer, 3, b"/silent")
            await app.started.wait()
        assert await living_tasks() == before
    assert server.entries == []
