"""Clients that misbehave to order, beside others that do not: a real gateway over the runtime's actors."""

import json
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.actor import Props
from atomr_trio.core import Deployment, ModelRunner, TokenChunk
from atomr_trio.gateway.actor import ApiGatewayActor, GatewayConfig
from atomr_trio.gateway.settings import GatewaySettings, ServerSettings
from atomr_trio.runtime import Cluster
from atomr_trio.testing import ClientFault, ClientFaultPlan, ask_badly

from .harness import capturing_log

WORDS = [f"word{number} " for number in range(40)]
PROMPT = "x" * 200


class Slow(ModelRunner):
    """Says a word every tenth of a second."""

    def __init__(self):
        self.running, self.said = set(), 0

    async def execute(self, batch, out):
        self.running.add(batch.request_id)
        try:
            for word in WORDS:
                await trio.sleep(0.1)
                self.said += 1
                out.push(TokenChunk(text_delta=word))
        finally:
            self.running.discard(batch.request_id)


@asynccontextmanager
async def gateway(**app):
    runner, (log, entries) = Slow(), capturing_log()

    async def create(_deployment):
        return runner

    config = GatewayConfig(port=0, server=ServerSettings(write_timeout=8), app=GatewaySettings(access_log=False, **app))
    async with Cluster.open(create_runner=create) as cluster:
        await cluster.deploy(Deployment(name="m", model="m", runtime="slow"))
        actor = ApiGatewayActor(config, cluster.directory, log=log)
        await cluster.system.actor_of(Props(factory=lambda: actor), "gateway")
        yield cluster, runner, f"{actor.urls[0]}/v1/chat/completions"
    assert [entry for entry in entries if entry["log_level"] == "error"] == []


def body_of(n=1, *, stream=True):
    messages = [{"role": "user", "content": PROMPT}]
    return json.dumps({"model": "m", "messages": messages, "stream": stream, "n": n}).encode()


def requests_of(cluster):
    [node] = [node for node in cluster.system.tree().children if node.path == "/gateway"]
    return [child.path for child in node.children]


PATIENT = ClientFault("stall")


@settings(max_examples=8)
@given(plan=st.builds(ClientFaultPlan, st.integers(0, 10**6)), n=st.integers(1, 2), _seed=st.random_module())
def test_who_misbehaves_harms_nobody_else_and_nothing_is_left(plan, n, _seed):
    answers = []

    async def well(url):
        answers.append(await ask_badly(url, body_of(), PATIENT))

    async def main():
        async with gateway() as (cluster, runner, url):
            async with trio.open_nursery() as nursery:
                for number in range(6):
                    nursery.start_soon(ask_badly, url, body_of(n, stream=number % 2 == 0), plan.client(number))
                for _ in range(2):
                    nursery.start_soon(well, url)
            await trio.sleep(1)
            assert not runner.running
            assert requests_of(cluster) == []

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.02))
    for answer in answers:
        assert all(word.encode() in answer for word in WORDS)
        assert b"[DONE]" in answer


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", ["leave", "reset"])
async def test_a_client_that_is_gone_cancels_all_of_its_choices(patient_clock, kind, stream, n):
    async with gateway() as (cluster, runner, url):
        with trio.move_on_after(1.55):
            # Not streamed, there is nothing to read before the end: it leaves while it waits.
            await ask_badly(url, body_of(n, stream=stream), evolve(PATIENT, kind=kind, after=300 if stream else 10**6))
        await trio.sleep(0.2)
        assert not runner.running
        assert runner.said <= n * 17
        assert requests_of(cluster) == []


async def test_a_plan_is_a_function_of_its_seed():
    plan = ClientFaultPlan(7)
    assert [plan.client(n) for n in range(20)] == [ClientFaultPlan(7).client(n) for n in range(20)]
    assert len({plan.client(n).kind for n in range(50)}) == 5
