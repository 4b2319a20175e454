"""Streams that go on without their client, who comes back for the rest; over real connections."""

import json
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.core import Backpressure
from atomr_trio.gateway import GatewaySettings, create_app

from .fakes import MODEL, NEVER, ScriptedBackend, say
from .harness import capturing_log, serving

CHAT = "/v1/chat/completions"


def body_of(**fields):
    return json.dumps(
        {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True, **fields}
    ).encode()


@attrs.define
class World:
    server: object
    backend: ScriptedBackend
    entries: list

    async def ask(self, **fields):
        client = await self.server.connect()
        await client.start("POST", CHAT, body_of(**fields))
        await client.finish(body_of(**fields))
        return client, await client.head()

    async def come_back(self, id, events):
        client = await self.server.connect()
        await client.start(
            "GET", f"/v1/streams/{id}", headers=[("last-event-id", str(events[-1][0]))] if events else []
        )
        await client.finish()
        return client, await client.head()

    async def go_on(self, id, after=None, method="GET"):
        headers = [] if after is None else [("last-event-id", str(after))]
        async with await self.server.connect() as client:
            return await client.request(method, f"/v1/streams/{id}", b"", headers)


@asynccontextmanager
async def world(*scripts, **given):
    log, entries = capturing_log()
    backend = ScriptedBackend(list(scripts) or [say("hello", " ", "world")])
    async with trio.open_nursery() as nursery:

        def spawn(fn, *args, name=None):
            nursery.start_soon(fn, *args, name=name)

        limits = GatewaySettings(**{"access_log": False, "resume_window": 30.0, **given})
        app = create_app(backend, limits, log=log, clock=lambda: 1_700_000_000, spawn=spawn)
        async with serving(app) as server:
            yield World(server, backend, entries)
        nursery.cancel_scope.cancel(reason="the test is over")
    assert entries == []


def events_of(body):
    """Ids and data of events."""
    found = []
    for block in body.decode().split("\n\n"):
        if block and not block.startswith(":"):
            first, second = block.split("\n")
            found.append((int(first.removeprefix("id: ")), second.removeprefix("data: ")))
    return found


def text_of(events):
    chunks = [json.loads(data) for _, data in events if data != "[DONE]"]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


async def read_events(client, count):
    body = b""
    while len(events_of(body[: body.rfind(b"\n\n") + 2])) < count:
        body += await client.piece()
    return events_of(body)


async def test_every_event_has_an_id_and_the_stream_one_too():
    async with world() as it:
        client, head = await it.ask()
        async with client:
            events = events_of(await client.answer_body())
        assert [number for number, _ in events] == list(range(1, len(events) + 1))
        assert events[-1][1] == "[DONE]"
        assert json.loads(events[0][1])["id"] == head.headers["x-stream-id"]
        assert events_of((await it.go_on(head.headers["x-stream-id"])).body) == events


async def test_streams_are_not_kept_unless_that_is_asked_for():
    async with world(resume_window=0.0) as it:
        client, head = await it.ask()
        async with client:
            assert "x-stream-id" not in head.headers
            assert b"id:" not in (await client.answer_body()).split(b"{", 1)[0]
        answer = await it.go_on("chatcmpl-1")
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (404, "stream_not_found")


async def test_a_client_comes_back_for_the_rest(patient_clock):
    more = trio.Event()
    async with world(say("a", 0.1, "b", more, "c", 0.1, "d")) as it:
        client, head = await it.ask()
        async with client:
            had = await read_events(client, 3)
        await trio.sleep(20)
        assert it.backend.running
        more.set()
        rest = events_of((await it.go_on(head.headers["x-stream-id"], had[-1][0])).body)
        assert [number for number, _ in had + rest] == list(range(1, len(had) + len(rest) + 1))
        assert text_of(had + rest) == "abcd"
        assert it.backend.left_early == []


async def test_nobody_who_comes_back_in_time_cancels_the_answer(patient_clock):
    async with world(say("a", NEVER)) as it:
        client, head = await it.ask()
        async with client:
            await read_events(client, 2)
        await trio.sleep(29)
        assert it.backend.running
        await trio.sleep(2)
        assert not it.backend.running
        assert len(it.backend.left_early) == 1
        assert (await it.go_on(head.headers["x-stream-id"])).status == 404


async def test_the_end_is_kept_for_a_while_too(patient_clock):
    async with world() as it:
        client, head = await it.ask()
        async with client:
            await client.answer_body()
        await trio.sleep(20)
        assert (await it.go_on(head.headers["x-stream-id"])).status == 200
        await trio.sleep(31)
        assert (await it.go_on(head.headers["x-stream-id"])).status == 404


async def test_the_latest_reader_has_the_stream(patient_clock):
    more = trio.Event()
    async with world(say("a", more, "b")) as it:
        client, head = await it.ask()
        async with client, await it.server.connect() as second:
            had = await read_events(client, 2)
            await second.start("GET", f"/v1/streams/{head.headers['x-stream-id']}", headers=[("last-event-id", "1")])
            await second.finish()
            await second.head()
            assert await read_events(second, 1) == had[1:]
            assert await client.piece() is None
            more.set()
            rest = events_of(await second.answer_body())
        assert text_of(had + rest) == "ab"


async def test_a_client_may_end_its_stream():
    async with world(say("a", NEVER)) as it:
        client, head = await it.ask()
        async with client:
            await read_events(client, 2)
            assert (await it.go_on(head.headers["x-stream-id"], method="DELETE")).status == 204
            assert await client.piece() is None
            await it.backend.idle.wait()
        assert (await it.go_on(head.headers["x-stream-id"], method="DELETE")).status == 404


async def test_a_client_that_leaves_before_it_has_the_id_cancels():
    async with world(say(NEVER)) as it:
        async with await it.server.connect() as client:
            await client.start("POST", CHAT, body_of())
            await client.finish(body_of())
            await it.backend.busy.wait()
        await it.backend.idle.wait()


@pytest.mark.parametrize("given", ["x", "-1", "1" * 30, "99"])
async def test_an_id_that_no_event_has(given):
    async with world() as it:
        client, head = await it.ask()
        async with client:
            await client.answer_body()
        assert (await it.go_on(head.headers["x-stream-id"], given)).status == 400


async def test_a_refusal_before_the_first_token_keeps_its_status():
    async with world(say(Backpressure("full"))) as it:
        client, head = await it.ask()
        async with client:
            assert head.status == 503


async def test_a_failure_later_is_an_event_that_can_be_read_again(patient_clock):
    async with world(say("a", 0.1, Backpressure("full"))) as it:
        client, head = await it.ask()
        async with client:
            events = events_of(await client.answer_body())
        assert [json.loads(data)["error"]["code"] for _, data in events[-2:-1]] == ["overloaded"]
        assert events_of((await it.go_on(head.headers["x-stream-id"], 1)).body) == events[1:]


async def test_a_slow_first_token_commits_to_a_stream_and_silence_has_heartbeats(patient_clock):
    async with world(say(25, "a", 25, "b"), heartbeat=10.0) as it:
        client, _head = await it.ask()
        async with client:
            body = await client.answer_body()
        assert body.count(b": ping") >= 4
        assert text_of(events_of(body)) == "ab"


async def test_what_a_lost_client_has_not_read_waits_and_what_it_has_is_dropped(patient_clock):
    words = [f"word{number} " for number in range(50)]
    async with world(say(*(step for word in words for step in (word, 0.01))), resume_bytes=1500) as it:
        client, head = await it.ask()
        id = head.headers["x-stream-id"]
        async with client:
            had = await read_events(client, 3)
        await trio.sleep(10)
        rest = events_of((await it.go_on(id, had[-1][0])).body)
        assert text_of(had + rest) == "".join(words)
        # What came while nobody read is merged.
        assert len(rest) < 20
        gone = await it.go_on(id, 0)
        assert (gone.status, json.loads(gone.body)["error"]["code"]) == (410, "replay_gone")


async def test_beyond_the_limit_streams_end_with_their_connection(patient_clock):
    async with world(say("a", NEVER), max_resumable=1) as it:
        first, head = await it.ask()
        second, other = await it.ask()
        async with first, second:
            assert "x-stream-id" in head.headers
            assert "x-stream-id" not in other.headers
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(it.backend.running) == 1
    async with world(max_resumable=1) as it:
        for _ in range(3):
            client, head = await it.ask()
            async with client:
                await client.answer_body()
            assert "x-stream-id" in head.headers


@settings(max_examples=10)
@given(data=st.data(), _seed=st.random_module())
def test_however_often_the_connection_breaks_nothing_is_missing_or_twice(data, _seed):
    words = [f"w{number} " for number in range(data.draw(st.integers(1, 8)))]
    pauses = st.sampled_from([0, 0, 3])
    script = say(*(step for word in words for step in (word, data.draw(pauses))))
    n = data.draw(st.integers(1, 2))

    async def main():
        async with world(script) as it:
            events = []
            client, head = await it.ask(n=n)
            while not events or events[-1][1] != "[DONE]":
                async with client:
                    body, left = b"", data.draw(st.integers(1, 6))
                    while left and (piece := await client.piece()) is not None:
                        body, left = body + piece, left - 1
                events += events_of(body[: body.rfind(b"\n\n") + 2])
                await trio.sleep(data.draw(pauses))
                client, again = await it.come_back(head.headers["x-stream-id"], events)
                assert again.status == 200
            await trio.aclose_forcefully(client.stream)
        assert [number for number, _ in events] == list(range(1, len(events) + 1))
        assert len(text_of(events)) == n * len("".join(words))

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.02))
