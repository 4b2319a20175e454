"""More connections than there may be: refused with an answer, or left waiting; never too many, and none lost."""

import json

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from quart_trio import QuartTrio

from atomr_trio.gateway import Connections, ServerSettings, serve
from atomr_trio.gateway.connections import FAREWELL, MAX_FAREWELLS, WARN_EVERY

from .harness import capturing_log, living_tasks, serving


def make_app():
    app = QuartTrio("test", static_folder=None)

    @app.get("/")
    async def ok():
        return "ok"

    return app


def counting(counter):
    async def run(*args, **kwargs):
        await serve(*args, **kwargs, connections=counter)

    return run


async def test_one_too_many_is_refused_with_an_answer(patient_clock):
    counter = Connections(2)
    async with serving(make_app(), ServerSettings(max_connections=2), serve=counting(counter)) as server:
        first, second = await server.connect(), await server.connect()
        async with first:
            async with second:
                assert (await first.get("/")).status == (await second.get("/")).status == 200
                async with await server.connect() as third:
                    answer = await third.get("/")
                    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (503, "overloaded")
                    assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")
                    assert answer.headers["x-request-id"].startswith("req-")
                    assert await third.wait_closed() == b""
                assert (counter.open, counter.peak, counter.refused) == (2, 2, 1)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert (await server.get("/")).status == 200
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert counter.open == 0
    assert [(entry["event"], entry["refused"]) for entry in server.entries] == [("connections refused", 1)]


async def test_who_waits_is_served_when_there_is_room(patient_clock):
    counter = Connections(1)
    settings = ServerSettings(max_connections=1, when_full="wait")
    async with serving(make_app(), settings, serve=counting(counter)) as server:
        answers = []

        async def ask():
            answers.append((await server.get("/")).status)

        async with trio.open_nursery() as nursery, await server.connect() as first:
            assert (await first.get("/")).status == 200
            for _ in range(5):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert answers == []
        assert answers == [200] * 5
        assert (counter.peak, counter.refused) == (1, 0)
    assert server.entries == []


async def test_those_who_wait_do_not_hold_up_the_end(patient_clock):
    settings = ServerSettings(max_connections=1, when_full="wait", grace=60)
    async with serving(make_app(), settings) as server, await server.connect() as first:
        assert (await first.get("/")).status == 200
        async with await server.connect():
            began = trio.current_time()
            server.stop()
            await server.stopped.wait()
            assert trio.current_time() - began < 1


async def test_refused_peers_that_stay_are_closed_and_leave_nothing(patient_clock):
    counter = Connections(1)
    async with serving(make_app(), ServerSettings(max_connections=1), serve=counting(counter)) as server:
        async with await server.connect() as first:
            assert (await first.get("/")).status == 200
            before = await living_tasks()
            others = [await server.connect() for _ in range(MAX_FAREWELLS + 5)]
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert counter.farewells == MAX_FAREWELLS
            await trio.sleep(FAREWELL + 0.5)
            assert (counter.farewells, await living_tasks()) == (0, before)
            answered = 0
            for other in others:
                async with other:
                    answered += (await other.wait_closed()).startswith(b"HTTP/1.1 503 ")
            assert answered == MAX_FAREWELLS
        assert counter.refused == MAX_FAREWELLS + 5
    # One line for all that came at once.
    assert len(server.entries) == 1


@given(st.integers(1, 3), st.lists(st.booleans()))
def test_never_more_than_may_be(most, moves):
    async def main():
        log, _ = capturing_log()
        counter, inside, refused = Connections(most), 0, 0
        for comes in moves:
            if comes:
                entered = counter.enter(log)
                assert entered == (inside < most)
                inside, refused = inside + entered, refused + (not entered)
            elif inside:
                counter.leave()
                inside -= 1
            assert (counter.open, counter.refused) == (inside, refused)
            assert counter.peak <= most

    trio.run(main)


async def test_warnings_are_rare(autojump_clock):
    log, entries = capturing_log()
    counter = Connections(0)
    for _ in range(25):
        counter.enter(log)
        await trio.sleep(1)
    assert [entry["refused"] for entry in entries] == [1, 1 + int(WARN_EVERY), 1 + 2 * int(WARN_EVERY)]


@pytest.mark.parametrize("bad", [{"max_connections": 0}, {"when_full": "panic"}, {"lame_duck": -1}])
def test_wrong_settings(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        ServerSettings(**bad)
