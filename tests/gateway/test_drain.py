"""A server that stops: what is open may finish, what is new is refused, and who asks whether it is ready hears no."""

import json
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.actor import Props
from atomr_trio.gateway import Drain, GatewaySettings, KeyStore, ServerSettings, create_app
from atomr_trio.gateway import serve as plain_serve
from atomr_trio.gateway.access import ApiKey, hashed, read_spent, write_keys
from atomr_trio.gateway.actor import ApiGatewayActor, GatewayConfig, ReloadKeys, Stop
from tests.runtime.kit import scripted_cluster

from .fakes import MODEL, ScriptedBackend, say
from .harness import Client, capturing_log, serving, until

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}).encode()


@asynccontextmanager
async def draining(*scripts, app_settings=None, **limits):
    """A server whose application knows when it stops."""
    log, entries = capturing_log()
    drain, backend = Drain(), ScriptedBackend(list(scripts))
    app = create_app(backend, app_settings or GatewaySettings(access_log=False), log=log, drain=drain)

    async def serve(*args, **kwargs):
        await plain_serve(*args, **kwargs, drain=drain)

    async with serving(app, ServerSettings(**limits), serve=serve) as server:
        yield server, backend, drain
    assert entries == []


async def begin(server):
    client = await server.connect()
    await client.start("POST", CHAT, BODY)
    await client.finish(BODY)
    assert (await client.head()).status == 200
    return client


async def test_what_is_open_finishes_and_what_is_new_is_refused(patient_clock):
    more = trio.Event()
    async with draining(say("a", more, "b"), grace=60) as (server, backend, drain):
        stream, old = await begin(server), await server.connect()
        assert (await old.get("/readyz")).status == 200
        server.stop()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert drain.draining
        for client in [old, await server.connect()]:
            async with client:
                answer = await client.request("POST", CHAT, BODY)
                assert (answer.status, json.loads(answer.body)["error"]["code"]) == (503, "overloaded")
                assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")
                assert await client.wait_closed() == b""
        for path, status in [("/readyz", 503), ("/health", 503), ("/livez", 200), ("/v1/models", 503)]:
            assert (await server.get(path)).status == status
        more.set()
        async with stream:
            assert (await stream.answer_body()).endswith(b"data: [DONE]\n\n")
        await server.stopped.wait()
        assert len(backend.submitted) == 1
        with pytest.raises(OSError, match=r"refused|reset"):
            await server.connect()


async def test_an_idle_connection_does_not_hold_it_up(patient_clock):
    async with draining(grace=60) as (server, _, _), await server.connect() as idle:
        assert (await idle.get("/livez")).status == 200
        began = trio.current_time()
        server.stop()
        await server.stopped.wait()
        assert trio.current_time() - began < 1
        assert await idle.wait_closed() == b""


@pytest.mark.parametrize(("lame_duck", "grace", "takes"), [(0, 10, 0), (5, 10, 5), (20, 10, 10)])
async def test_a_lame_duck_answers_for_a_while(lame_duck, grace, takes, patient_clock):
    async with draining(lame_duck=lame_duck, grace=grace) as (server, _, _):
        began = trio.current_time()
        server.stop()
        if takes:
            await trio.sleep(takes - 1)
            assert (await server.get("/readyz")).status == 503
        await server.stopped.wait()
        assert takes <= trio.current_time() - began < takes + 1


async def test_probes_do_not_hold_it_up(patient_clock):
    more = trio.Event()
    async with draining(say("a", more, "b"), grace=60) as (server, _, drain):
        stream = await begin(server)
        server.stop()
        await trio.testing.wait_all_tasks_blocked(0.01)
        async with await server.connect() as slow:
            # Half a request, which came too late to be waited for.
            await slow.start("POST", CHAT, BODY)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert drain.open == 1
            more.set()
            began = trio.current_time()
            async with stream:
                await stream.answer_body()
            await server.stopped.wait()
            assert trio.current_time() - began < 10


@settings(max_examples=100)
@given(st.lists(st.sampled_from(["enter", "leave", "begin"])), st.random_module())
def test_every_request_that_was_counted_is_waited_for(moves, _random):
    async def main():
        drain, counted = Drain(), 0
        async with trio.open_nursery() as nursery:
            for move in moves:
                if move == "enter":
                    counted += drain.enter()
                elif move == "leave" and counted:
                    drain.leave()
                    counted -= 1
                elif move == "begin":
                    drain.begin()
                assert drain.open == counted
            idle = trio.Event()

            async def wait():
                await drain.wait_idle()
                idle.set()

            nursery.start_soon(wait)
            for _ in range(counted):
                await trio.testing.wait_all_tasks_blocked()
                assert not idle.is_set()
                drain.leave()
            await idle.wait()

    trio.run(main)


# The whole: the gateway's actor over a runtime.


@asynccontextmanager
async def gateway(*, keys=None, **limits):
    log, entries = capturing_log()
    config = GatewayConfig(port=0, server=ServerSettings(**limits), app=GatewaySettings(access_log=False))
    async with scripted_cluster() as (cluster, (runner,)):
        actor = ApiGatewayActor(config, cluster.directory, log=log, keys=keys)
        ref = await cluster.system.actor_of(Props(factory=lambda: actor), "gateway")
        port = int(actor.urls[0].rpartition(":")[2])

        async def connect():
            return Client(await trio.open_tcp_stream("127.0.0.1", port))

        yield ref, connect, runner, entries
        ref.tell(Stop())
        await ref.wait_terminated()


def completion(prompt):
    return json.dumps({"model": "m", "prompt": prompt, "stream": True, "max_tokens": 1000}).encode()


async def test_what_does_not_finish_in_time_is_told_so_and_ends_properly(patient_clock):
    async with gateway(grace=5) as (ref, connect, runner, _), await connect() as client:
        await client.start("POST", "/v1/completions", completion("talk"))
        await client.finish(completion("talk"))
        assert (await client.head()).status == 200
        began = trio.current_time()
        ref.tell(Stop())
        ref.tell(Stop())
        await trio.sleep(2)
        async with await connect() as other:
            assert (await other.get("/readyz")).status == 503
        body = (await client.answer_body()).decode()
        assert 5 <= trio.current_time() - began < 6
        *_, error, done, _ = body.split("\n\n")
        assert json.loads(error.removeprefix("data: "))["error"]["code"] == "model_unavailable"
        assert done == "data: [DONE]"
        await ref.wait_terminated()
        assert runner.running == set()


async def test_the_actor_keeps_and_reloads_its_keys(tmp_path, patient_clock):
    path = tmp_path / "keys.json"
    one = ApiKey(name="one", sha256=hashed(b"one"), budget_tokens=5000)
    write_keys(path, [one])
    keys = KeyStore.from_file(path, capturing_log()[0])

    async def status(connect, secret):
        async with await connect() as client:
            return (await client.request("GET", "/v1/models", b"", [("x-api-key", secret)])).status

    async with gateway(keys=keys) as (ref, connect, _, entries):
        assert (await status(connect, "one"), await status(connect, "two")) == (200, 401)
        path.write_text("{")
        ref.tell(ReloadKeys())
        await until(lambda: entries)
        assert (entries[0]["event"], entries[0]["log_level"]) == ("the keys stay as they were", "error")
        assert await status(connect, "one") == 200
        write_keys(path, [one, ApiKey(name="two", sha256=hashed(b"two"))])
        ref.tell(ReloadKeys())
        await until(lambda: len(entries) == 2)
        assert await status(connect, "two") == 200
        async with await connect() as client:
            headers = [("x-api-key", "one")]
            assert (await client.request("POST", "/v1/completions", completion("hello"), headers)).status == 200
    assert read_spent(path)[one.id].tokens > 0


async def test_a_price_comes_from_the_runner(patient_clock):
    async with scripted_cluster() as (cluster, (runner,)):
        record = await cluster.directory.deployment("m")
        assert record.price == runner.estimate_cost_usd


@pytest.mark.parametrize(
    ("host", "keyed", "warned"), [("127.0.0.1", False, 0), ("0.0.0.0", False, 1), ("0.0.0.0", True, 0)]
)
async def test_an_open_server_that_others_reach_warns(host, keyed, warned, patient_clock):
    log, entries = capturing_log()
    keys = KeyStore.from_text('{"keys": []}', "here", log) if keyed else None
    async with scripted_cluster() as (cluster, _):
        config = GatewayConfig(host=host, port=0, app=GatewaySettings(access_log=False))
        ref = await cluster.system.actor_of(
            Props(factory=lambda: ApiGatewayActor(config, cluster.directory, log=log, keys=keys)), "gateway"
        )
        ref.tell(Stop())
        await ref.wait_terminated()
    assert [entry["log_level"] for entry in entries] == ["warning"] * warned
