"""Deaths one after the other, while 32 answers are computed again: no request is to blame, and none is blamed."""

import random
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from atomr_trio.core import CudaContextPoisoned, Deployment, ModelRunner, Serving, TokenChunk
from atomr_trio.runtime import Cluster

from .kit import batch

STREAMS, TOKENS = 32, 24
DEATHS = {False: 5, True: 7}
"""One more might convict somebody, if all of them met the same request, each sooner than its next token."""

RECOMPUTE_S, STEP_S, RESTART_S = 0.14, 0.15, 1.0


class Serial(ModelRunner):
    """Takes answers up one after the other, as a device does with their prompts, and then tells all of them."""

    resumable = True

    async def die(self, moment):
        """Wait for a session, and end it so long after it was open; returns once that was noticed."""
        await self._opened.wait()
        await trio.sleep(moment)
        self._ended.set()
        await self._gone.wait()

    def __init__(self, *, from_outside):
        self._failure = CudaContextPoisoned("the device process is gone", from_outside)
        self._begin()

    def _begin(self):
        self._opened, self._ended, self._gone = trio.Event(), trio.Event(), trio.Event()

    @asynccontextmanager
    async def session(self):
        await trio.sleep(RESTART_S)
        self._device = trio.Lock()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch)
                self._opened.set()
                yield
                nursery.cancel_scope.cancel()
        finally:
            gone = self._gone
            self._begin()
            gone.set()

    async def _watch(self):
        await self._ended.wait()
        raise self._failure

    async def execute(self, batch, out):
        async with self._device:
            await trio.sleep(RECOMPUTE_S)
        for position in range(len(batch.generated), TOKENS):
            out.push(TokenChunk(token_ids=(position,)))
            await trio.sleep(STEP_S)


@pytest.mark.parametrize("mean", [0.2, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("from_outside", [False, True])
@pytest.mark.parametrize("seed", range(6))
async def test_a_storm_of_deaths_convicts_nobody(autojump_clock, mean, from_outside, seed):
    rng, runner, outcomes = random.Random(seed), Serial(from_outside=from_outside), {}

    async def create(_deployment):
        return runner

    async def ask(name):
        answer = await cluster.execute(batch("", name))
        outcomes[name] = list(answer.token_ids)

    async with Cluster.open(create_runner=create) as cluster:
        serving = Serving(max_concurrent=STREAMS)
        deployment = Deployment(name="m", model="m", runtime="serial", serving=serving, max_restarts=10**6)
        await cluster.deploy(deployment, wait=True)
        async with trio.open_nursery() as nursery:
            for number in range(STREAMS):
                nursery.start_soon(ask, f"r{number}")
            for _ in range(DEATHS[from_outside]):
                await runner.die(rng.uniform(0, 2 * mean))
    assert outcomes == {f"r{number}": list(range(TOKENS)) for number in range(STREAMS)}
