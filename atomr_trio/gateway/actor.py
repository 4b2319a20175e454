"""The gateway in the tree: it owns the server's sockets and task, and is the parent of every request."""

import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import evolve, field, frozen

from atomr_trio.actor import Actor, Context, Directive, SupervisorStrategy, dynamic_pool
from atomr_trio.core import DeploymentState, ExecuteBatch
from atomr_trio.runtime import DeploymentRecord, Directory

from .app import create_app
from .backend import AnswerStream, ModelInfo, Readiness
from .logs import Log, stderr_log
from .server import serve
from .settings import GatewaySettings, ServerSettings
from .sockets import open_sockets, urls

__all__ = ["ApiGatewayActor", "GatewayConfig", "RuntimeBackend", "Stop"]

FAREWELL = 1.0
"""Seconds that streams get to say that they were cut, after the grace is over."""


@frozen(kw_only=True)
class GatewayConfig:
    """Where and how to serve.

    Args:
        host: address to bind.
        port: port to bind; 0 takes a free one.
        server: limits of the connections.
        app: limits of the requests.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    server: ServerSettings = field(factory=ServerSettings)
    app: GatewaySettings = field(factory=GatewaySettings)


@frozen
class Stop:
    """Refuse new connections, let requests in flight finish within the grace, then stop."""


class ApiGatewayActor(Actor[Stop]):
    """Owns the Hypercorn server. A bind failure fails its start.

    Args:
        config: where and how to serve.
        directory: the runtime behind it.
        log: access lines and trouble; standard error unless given.
    """

    supervisor_strategy: SupervisorStrategy = dynamic_pool(otherwise=Directive.STOP)

    def __init__(self, config: GatewayConfig, directory: Directory, *, log: Log | None = None) -> None:
        self._config = config
        self._directory = directory
        self._log = log or stderr_log()
        self._shutdown = trio.Event()
        self.urls: list[str] = []

    async def pre_start(self, ctx: Context[Stop]) -> None:
        """Bind, and begin to serve.

        Raises:
            BindError: the address is taken or not ours.
        """
        sockets = open_sockets(self._config.host, self._config.port)
        self.urls = urls(sockets)
        ctx.spawn_task(self._serve, sockets, ctx, name="server")

    async def handle(self, message: Stop, ctx: Context[Stop]) -> None:
        """Begin to shut down. A second ``Stop`` changes nothing."""
        if not self._shutdown.is_set():
            self._shutdown.set()
            ctx.spawn_task(self._end_requests, ctx, name="grace")

    async def _serve(self, sockets: Sequence[socket.socket], ctx: Context[Stop]) -> None:
        app = create_app(RuntimeBackend(self._directory, ctx), self._config.app, log=self._log)
        settings = evolve(self._config.server, grace=self._config.server.grace + FAREWELL)
        await serve(app, sockets, settings, shutdown_trigger=self._shutdown.wait, log=self._log)
        ctx.stop("the server has shut down")

    async def _end_requests(self, ctx: Context[Stop]) -> None:
        await trio.sleep(self._config.server.grace)
        # Each of them ends its stream with a typed error, which the client gets as the last event.
        for request in ctx.children:
            request.stop("the server is stopping")


@frozen
class RuntimeBackend:
    """The runtime's actors behind the gateway's seam; requests become children of ``ctx``'s actor."""

    _directory: Directory
    _ctx: Context[Any]

    async def models(self) -> Sequence[ModelInfo]:
        """All deployments but those that are being removed."""
        records = await self._directory.deployments()
        return [_model(record) for record in records if record.state is not DeploymentState.DRAINING]

    async def prepare(self, batch: ExecuteBatch, /) -> ExecuteBatch:
        """Check a request and tokenize its prompt."""
        return await self._directory.prepare(batch)

    @asynccontextmanager
    async def submit(self, batch: ExecuteBatch, /) -> AsyncGenerator[AnswerStream]:
        """Run a request; leaving the block cancels it."""
        async with self._directory.submit(batch, self._ctx) as stream:
            yield stream

    async def readiness(self) -> Readiness:
        """Ready when there is a deployment and every one serves."""
        records = await self._directory.deployments()
        states = {record.deployment.name: record.state for record in records}
        ready = bool(states) and all(state is DeploymentState.SERVING for state in states.values())
        return Readiness(ready=ready, deployments=states)


def _model(record: DeploymentRecord) -> ModelInfo:
    return ModelInfo(
        id=record.deployment.name,
        created=record.created,
        max_model_len=None if record.codec is None else record.codec.max_model_len,
        state=record.state,
    )
