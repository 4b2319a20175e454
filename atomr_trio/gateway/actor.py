"""The gateway in the tree: it owns the server's sockets and task, and is the parent of every request."""

import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import evolve, field, frozen

from atomr_trio.actor import Actor, Context, Directive, SupervisorStrategy, dynamic_pool
from atomr_trio.core import DeploymentState, ExecuteBatch, Tokenize
from atomr_trio.runtime import DeploymentRecord, Directory

from .access import KeyFileError
from .app import create_app
from .backend import AnswerStream, ModelInfo, Readiness
from .connections import Connections
from .drain import Drain
from .key_store import KeyStore
from .logs import Log, stderr_log
from .server import serve
from .settings import GatewaySettings, ServerSettings
from .sockets import is_exposed, open_sockets, urls

__all__ = ["ApiGatewayActor", "GatewayConfig", "GatewayMsg", "ReloadKeys", "RuntimeBackend", "Stop"]

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


@frozen
class ReloadKeys:
    """Read the file of the keys again. If it is broken, the keys stay as they are, and the log says why."""


GatewayMsg = Stop | ReloadKeys


class ApiGatewayActor(Actor[GatewayMsg]):
    """Owns the Hypercorn server. A bind failure fails its start.

    Args:
        config: where and how to serve.
        directory: the runtime behind it.
        log: access lines and trouble; standard error unless given.
        keys: who is let in; everybody unless given.
    """

    supervisor_strategy: SupervisorStrategy = dynamic_pool(otherwise=Directive.STOP)

    def __init__(
        self, config: GatewayConfig, directory: Directory, *, log: Log | None = None, keys: KeyStore | None = None
    ) -> None:
        self._config = config
        self._directory = directory
        self._log = log or stderr_log()
        self._keys = keys
        self._drain = Drain()
        self._shutdown = trio.Event()
        self.connections: Connections = Connections(config.server.max_connections)
        self.urls: list[str] = []

    async def pre_start(self, ctx: Context[GatewayMsg]) -> None:
        """Bind, and begin to serve.

        Raises:
            BindError: the address is taken or not ours.
        """
        sockets = open_sockets(self._config.host, self._config.port)
        self.urls = urls(sockets)
        if self._keys is None and is_exposed(sockets):
            self._log.warning("other machines can use this server, without a key", urls=self.urls)
        ctx.spawn_task(self._serve, sockets, ctx, name="server")
        if self._keys is not None:
            ctx.spawn_task(self._keys.keep_spent, name="spending")

    async def handle(self, message: GatewayMsg, ctx: Context[GatewayMsg]) -> None:
        """Begin to shut down, or reload the keys. A second ``Stop`` changes nothing."""
        if isinstance(message, ReloadKeys):
            await self._reload()
        elif not self._shutdown.is_set():
            self._shutdown.set()
            ctx.spawn_task(self._end_requests, ctx, name="grace")

    async def post_stop(self, ctx: Context[GatewayMsg]) -> None:
        """Write down what was spent; all requests have ended and are settled."""
        if self._keys is not None:
            await self._keys.save_spent()

    async def _reload(self) -> None:
        if self._keys is None:
            return
        try:
            count = await self._keys.reload()
        except KeyFileError as error:
            self._log.error("the keys stay as they were", reason=str(error))
        else:
            self._log.info("the keys were read again", keys=count)

    async def _serve(self, sockets: Sequence[socket.socket], ctx: Context[GatewayMsg]) -> None:
        app = create_app(
            RuntimeBackend(self._directory, ctx),
            self._config.app,
            log=self._log,
            spawn=ctx.spawn_task,
            keys=None if self._keys is None else self._keys.ring,
            drain=self._drain,
        )
        await serve(
            app,
            sockets,
            evolve(self._config.server, grace=self._config.server.grace + FAREWELL),
            shutdown_trigger=self._shutdown.wait,
            log=self._log,
            drain=self._drain,
            connections=self.connections,
        )
        ctx.stop("the server has shut down")

    async def _end_requests(self, ctx: Context[GatewayMsg]) -> None:
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

    async def tokenize(self, question: Tokenize, /) -> tuple[int, ...]:
        """The token ids of a text or of a conversation."""
        return await self._directory.tokenize(question)

    async def spell(self, model: str, ids: Sequence[int], /) -> tuple[bytes, ...]:
        """The bytes of each token."""
        return await self._directory.spell(model, ids)

    @asynccontextmanager
    async def submit(self, batch: ExecuteBatch, /) -> AsyncGenerator[AnswerStream]:
        """Run a request; leaving the block cancels it."""
        async with self._directory.submit(batch, self._ctx) as stream:
            yield stream

    async def pricing(self, model: str, /) -> Callable[[ExecuteBatch], float]:
        """What a batch of this model may cost; nothing while it is not loaded."""
        return (await self._directory.deployment(model)).price or _free

    async def readiness(self) -> Readiness:
        """Ready when there is a deployment and every one serves."""
        records = await self._directory.deployments()
        states = {record.deployment.name: record.state for record in records}
        ready = bool(states) and all(state is DeploymentState.SERVING for state in states.values())
        return Readiness(ready=ready, deployments=states)


def _free(_batch: ExecuteBatch) -> float:
    return 0.0


def _model(record: DeploymentRecord) -> ModelInfo:
    return ModelInfo(
        id=record.deployment.name,
        created=record.created,
        max_model_len=None if record.codec is None else record.codec.max_model_len,
        state=record.state,
    )
