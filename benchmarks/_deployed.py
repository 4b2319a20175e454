"""A model served in this process, without HTTP: where a benchmark must see single tokens, priorities and pages."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import trio
from attrs import define, field

from atomr_trio.catalog import default_catalog, ensure_model
from atomr_trio.core import Deployment, ExecuteBatch, SamplingParams, Serving, TokenChunk
from atomr_trio.engine.frames import Ready
from atomr_trio.runners.jax_local import JaxLocalRunner
from atomr_trio.runtime import Cluster, TokenStream

NAME = "bench"


@define
class Deployed:
    """One deployment of the local runner, and the runner itself."""

    cluster: Cluster
    runner: JaxLocalRunner
    _numbers: "count[int]" = field(factory=count)

    @property
    def device(self) -> Ready:
        assert self.runner.device is not None
        return self.runner.device

    @property
    def description(self) -> str:
        return f"{self.runner.description}, {self.device.num_pages} pages of {self.device.page_size} tokens"

    @asynccontextmanager
    async def ask(
        self, prompt: tuple[int, ...], sampling: SamplingParams, priority: int = 0
    ) -> AsyncGenerator[TokenStream]:
        """Submit one request; leaving the block cancels what still runs."""
        batch = ExecuteBatch(
            request_id=f"bench-{next(self._numbers)}",
            model=NAME,
            prompt=prompt,
            sampling=sampling,
            priority=priority,
            stream=True,
        )
        async with self.cluster.submit(await self.cluster.directory.prepare(batch)) as stream:
            yield stream


async def chunks_of(stream: TokenStream) -> AsyncGenerator[TokenChunk]:
    while True:
        try:
            yield await stream.receive()
        except StopAsyncIteration:
            return


@asynccontextmanager
async def deployed(
    model: str, serving: Serving, max_restarts: int = 3, **runtime_config: Any
) -> AsyncGenerator[Deployed]:
    """Serve a catalogue name or a path; with ``load_format="dummy"``, the shape of a `config.json`."""
    path = str(ensure_model(default_catalog(), model))
    runtime_config.setdefault("spare", "none")
    config = {name: value for name, value in runtime_config.items() if value is not None}
    deployment = Deployment(
        name=NAME, model=path, runtime="jax", runtime_config=config, serving=serving, max_restarts=max_restarts
    )
    runners: list[JaxLocalRunner] = []

    async def create(wanted: Deployment) -> JaxLocalRunner:
        runners.append(await trio.to_thread.run_sync(JaxLocalRunner.from_deployment, wanted))
        return runners[-1]

    async with Cluster.open(create_runner=create) as cluster:
        await cluster.deploy(deployment)
        yield Deployed(cluster, runners[0])
