"""Event streams take the short way to the socket: what arrives is what the long way would have brought."""

import json

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.gateway import GatewaySettings, ServerSettings, create_app

from .fakes import MODEL, NEVER, ScriptedBackend, say
from .harness import capturing_log, serving

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}).encode()


def app_of(*steps, **given):
    log, _ = capturing_log()
    backend = ScriptedBackend([say(*steps)])
    return backend, create_app(backend, GatewaySettings(access_log=False, **given), log=log)


def text_of(body):
    chunks = [json.loads(line[6:]) for line in body.decode().splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


@settings(max_examples=10)
@given(sizes=st.lists(st.sampled_from([1, 100, 5000, 300_000]), min_size=1, max_size=8), _seed=st.random_module())
def test_a_slow_reader_with_a_small_buffer_gets_every_byte(sizes, _seed):
    words = [chr(97 + number) * size for number, size in enumerate(sizes)]

    async def main():
        _, app = app_of(*(step for word in words for step in (word, 0.1)))
        async with serving(app) as server, await server.connect(rcvbuf=4096) as client:
            await client.start("POST", CHAT, BODY)
            await client.finish(BODY)
            await client.head()
            body = b""
            while (piece := await client.piece()) is not None:
                body += piece
                await trio.lowlevel.checkpoint()
            assert text_of(body) == "".join(words)
            assert body.endswith(b"data: [DONE]\n\n")
            # The framing was right to its end: the connection serves on.
            client._http.start_next_cycle()
            assert (await client.get("/livez")).status == 200

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.05))


@settings(max_examples=30)
@given(steps=st.lists(st.sampled_from(["a", "bc", 0.0, 0.25]), max_size=8), _seed=st.random_module())
def test_what_has_come_waits_for_no_sign_of_life(steps, _seed):
    """Also what came while the response began: the head, the first news and the rest meet in every order."""

    async def main():
        _, app = app_of(*steps, "d", heartbeat=30.0)
        async with serving(app) as server, await server.connect() as client:
            start = trio.current_time()
            answer = await client.request("POST", CHAT, BODY)
            assert trio.current_time() - start < 5
            assert text_of(answer.body) == "".join(step for step in steps if isinstance(step, str)) + "d"
            assert b": ping" not in answer.body

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.02))


async def test_a_reader_that_stalls_is_cut_at_the_write_deadline_and_its_answer_cancelled(patient_clock):
    backend, app = app_of(*["x" * 500_000, 0.01] * 40, NEVER)
    async with serving(app, ServerSettings(write_timeout=5)) as server, await server.connect(rcvbuf=4096) as client:
        await client.start("POST", CHAT, BODY)
        await client.finish(BODY)
        with trio.fail_after(20):
            await backend.busy.wait()
            await backend.idle.wait()
        assert len(backend.left_early) == 1


async def test_a_client_that_leaves_in_a_write_cancels(patient_clock):
    backend, app = app_of(*["x" * 500_000, 0.01] * 40, NEVER)
    async with serving(app) as server:
        async with await server.connect(rcvbuf=4096) as client:
            await client.start("POST", CHAT, BODY)
            await client.finish(BODY)
            await client.head()
        with trio.fail_after(3):
            await backend.idle.wait()


async def test_http_1_0_has_no_chunks():
    _, app = app_of("a", "b")
    async with serving(app) as server, await server.connect() as client:
        head = f"POST {CHAT} HTTP/1.0\r\nhost: test\r\ncontent-length: {len(BODY)}\r\n\r\n"
        await client.raw(head.encode() + BODY)
        _, _, body = (await client.wait_closed()).partition(b"\r\n\r\n")
        assert body.startswith(b"data: ")
        assert text_of(body) == "ab"


async def test_the_head_comes_with_the_first_piece_even_if_there_is_no_token_yet(patient_clock):
    _, app = app_of(NEVER, heartbeat=3.0)
    async with serving(app) as server, await server.connect() as client:
        await client.start("POST", CHAT, BODY)
        await client.finish(BODY)
        first = await client.stream.receive_some(65536)
        assert first.startswith(b"HTTP/1.1 200")
        assert b": ping\n\n" in first
