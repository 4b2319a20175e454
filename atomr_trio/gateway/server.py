"""The server: accepts on prepared sockets, drives connections, and ends them in order."""

import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, LifespanState

from .driver import GuardedConnection, Stream
from .logs import HypercornLog, Log, stderr_log
from .settings import ServerSettings
from .sockets import urls

__all__ = ["serve"]


async def serve(
    app: ASGIFramework,
    sockets: Sequence[socket.socket],
    settings: ServerSettings | None = None,
    *,
    shutdown_trigger: Callable[[], Awaitable[object]] | None = None,
    log: Log | None = None,
    task_status: "trio.TaskStatus[list[str]]" = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application until ``shutdown_trigger`` returns, then wait for the requests in flight.

    A shutdown first closes the listening sockets and the idle connections; connections in use close after their
    response. What is still open after ``settings.grace`` is cut. Cancelling this call cuts everything at once.

    Args:
        app: an ASGI 3 application.
        sockets: listening sockets, from `open_sockets`. They are closed when this returns.
        settings: limits.
        shutdown_trigger: returns when the server shall stop; ``None`` serves until cancelled.
        log: where trouble is written; standard error unless given.
        task_status: gets the URLs once connections are accepted.
    """
    settings = settings or ServerSettings()
    log = log or stderr_log()
    config = hypercorn_config(settings, log)
    state = LifespanState({})
    wrapped = ASGIWrapper(app)
    lifespan = Lifespan(wrapped, config, state)
    context = WorkerContext(None)

    async def handle(stream: Stream) -> None:
        connection = GuardedConnection(wrapped, config, context, state, stream, settings=settings, log=log)
        await connection.run()

    listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in sockets]
    async with trio.open_nursery() as around:
        await around.start(lifespan.handle_lifespan)
        await lifespan.wait_for_startup()
        async with trio.open_nursery() as connections:
            async with trio.open_nursery() as accepting:
                accept = partial(trio.serve_listeners, handle, listeners, handler_nursery=connections)
                await accepting.start(accept)
                task_status.started(urls(sockets))
                await (shutdown_trigger or trio.sleep_forever)()
                accepting.cancel_scope.cancel(reason="the server shuts down")
            await context.terminated.set()
            connections.cancel_scope.deadline = trio.current_time() + settings.grace
        if connections.cancel_scope.cancelled_caught:
            log.warning("connections cut", reason="the grace period of the shutdown ended", grace=settings.grace)
        await lifespan.wait_for_shutdown()
        around.cancel_scope.cancel(reason="the server has shut down")


def hypercorn_config(settings: ServerSettings, log: Log) -> Config:
    """Hypercorn's form of our settings."""
    config = Config()
    config.accesslog = None
    config.errorlog = None
    config.logger_class = cast("type[Any]", partial(HypercornLog, log))
    config.include_server_header = False
    config.keep_alive_timeout = settings.keep_alive_timeout
    config.keep_alive_max_requests = settings.max_requests_per_connection
    config.h11_max_incomplete_size = settings.max_header_bytes
    config.startup_timeout = settings.startup_timeout
    config.shutdown_timeout = settings.shutdown_timeout
    return config
