"""A whole runtime in one block: for programs that serve themselves, for the gateway, and for tests."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from signal import Signals
from typing import Any

import trio
from attrs import define

from atomr_trio.actor import Actor, ActorRef, ActorSystem, Context, Directive, Props, dynamic_pool
from atomr_trio.core import (
    Deployment,
    DeploymentState,
    DeploymentUnavailable,
    ExecuteBatch,
    ModelRunner,
    TokenChunk,
    Tokens,
)
from atomr_trio.runners import RunnerRegistry

from .coordinator import DpCoordinatorActor
from .deployments import DeploymentManagerActor, RunnerFactory
from .directory import Directory
from .messages import (
    Apply,
    AwaitSettled,
    CoordinatorMsg,
    DeploymentMetrics,
    DeploymentMsg,
    DeploymentRecord,
    MetricsMsg,
    Remove,
    Snapshot,
)
from .metrics import MetricsActor
from .stream import TokenStream

__all__ = ["Cluster"]

LAUNCH_TIMEOUT = 3600.0
"""Seconds that reading a model's files may take: it may include a download."""


class _Clients(Actor[None]):
    """Parent of the requests that the program itself makes."""

    supervisor_strategy = dynamic_pool(otherwise=Directive.STOP)

    def __init__(self) -> None:
        self.ctx: Context[Any] | None = None

    async def pre_start(self, ctx: Context[None]) -> None:
        self.ctx = ctx


@define(eq=False)
class Cluster:
    """The runtime's actors, wired. Open one with ``async with Cluster.open() as cluster``."""

    system: ActorSystem
    directory: Directory
    _clients: _Clients

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        registry: RunnerRegistry | None = None,
        *,
        create_runner: RunnerFactory | None = None,
        name: str = "atomr",
        dump_signal: Signals | None = None,
        slow_step: float | None = None,
    ) -> "AsyncGenerator[Cluster]":
        """Start the runtime; leaving the block stops everything in it, the youngest first.

        Args:
            registry: finds runners by runtime name; the default knows the installed ones.
            create_runner: builds the runners instead of the registry.
            name: the actor system's.
            dump_signal: writes the tree of actors to the log when it arrives.
            slow_step: seconds that an actor may hold the loop before a warning names it.
        """
        create = create_runner or _in_thread(registry or RunnerRegistry())
        clients = _Clients()
        async with ActorSystem.create(name, dump_signal=dump_signal, slow_step=slow_step) as system:
            metrics: ActorRef[MetricsMsg] = await system.actor_of(Props(factory=MetricsActor), "metrics")
            coordinator: ActorRef[CoordinatorMsg] = await system.actor_of(
                Props(factory=DpCoordinatorActor, capacity=16_384), "coordinator"
            )
            manager: ActorRef[DeploymentMsg] = await system.actor_of(
                Props(factory=lambda: DeploymentManagerActor(create, coordinator)), "deployments"
            )
            await system.actor_of(Props[None](factory=lambda: clients), "clients")
            yield cls(system, Directory(coordinator, manager, metrics), clients)

    async def deploy(self, deployment: Deployment, *, wait: bool = True) -> DeploymentRecord:
        """Serve a deployment.

        Args:
            deployment: what to serve.
            wait: return when it can answer; else as soon as its engines have begun to load.

        Raises:
            ModelLoadError: it can never be served.
            DeploymentUnavailable: it failed while it was waited for.
        """
        record = await self.directory.manager.ask(Apply(deployment), timeout=LAUNCH_TIMEOUT)
        if wait:
            record = await self.directory.manager.ask(AwaitSettled(deployment.name), timeout=LAUNCH_TIMEOUT)
            if record.state is DeploymentState.FAILED:
                raise DeploymentUnavailable(deployment.name, record.reason or "it failed")
        return record

    async def remove(self, name: str) -> None:
        """Drain a deployment and forget it; waits for its last request.

        Raises:
            ModelNotFound: there is none of this name.
        """
        await self.directory.manager.ask(Remove(name), timeout=LAUNCH_TIMEOUT)

    def submit(self, batch: ExecuteBatch) -> AbstractAsyncContextManager[TokenStream]:
        """Run a prepared batch; leaving the block cancels what still runs."""
        if self._clients.ctx is None:
            raise RuntimeError("the cluster is not open")
        return self.directory.submit(batch, self._clients.ctx)

    async def execute(self, batch: ExecuteBatch) -> Tokens:
        """Run a batch and return its whole answer.

        Raises:
            InferenceError: whatever ended it.
        """
        async with self.submit(await self.directory.prepare(batch)) as stream:
            return await stream.collect()

    @asynccontextmanager
    async def execute_stream(self, batch: ExecuteBatch) -> AsyncGenerator[AsyncIterator[TokenChunk]]:
        """Run a batch and iterate over its chunks; what came while you were busy is one chunk."""
        async with self.submit(await self.directory.prepare(batch)) as stream:
            yield _Chunks(stream)

    async def metrics(self) -> dict[str, DeploymentMetrics]:
        """Return the counters of every deployment."""
        return await self.directory.metrics.ask(Snapshot(), timeout=2.0)


def _in_thread(registry: RunnerRegistry) -> RunnerFactory:
    async def create(deployment: Deployment) -> ModelRunner:
        # Reading a model's files takes seconds.
        return await trio.to_thread.run_sync(registry.create, deployment)

    return create


@define
class _Chunks:
    _stream: TokenStream

    def __aiter__(self) -> "_Chunks":
        return self

    async def __anext__(self) -> TokenChunk:
        return await self._stream.receive()
