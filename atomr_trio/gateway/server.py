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

from .connections import Connections, PatientListener, refuse
from .drain import Drain
from .driver import GuardedConnection, Stream
from .logs import HypercornLog, Log, stderr_log
from .rounds import Rounds
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
    drain: Drain | None = None,
    connections: Connections | None = None,
    task_status: "trio.TaskStatus[list[str]]" = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application until ``shutdown_trigger`` returns, then wait for the requests in flight.

    A shutdown waits for the requests in flight, and for ``settings.lame_duck``; an application that shares ``drain``
    refuses new ones meanwhile. Then the listening sockets and the idle connections are closed; connections in use close
    after their response. What is still open after ``settings.grace`` is cut. Cancelling this call cuts everything at
    once.

    Args:
        app: an ASGI 3 application.
        sockets: listening sockets, from `open_sockets`. They are closed when this returns.
        settings: limits.
        shutdown_trigger: returns when the server shall stop; ``None`` serves until cancelled.
        log: where trouble is written; standard error unless given.
        drain: the requests of the application, if it counts them.
        connections: counts the connections; made anew unless given.
        task_status: gets the URLs once connections are accepted.
    """
    settings = settings or ServerSettings()
    log = log or stderr_log()
    config = hypercorn_config(settings, log)
    state = LifespanState({})
    wrapped = ASGIWrapper(app)
    lifespan = Lifespan(wrapped, config, state)
    context = WorkerContext(None)

    drain = drain or Drain()
    counter = connections or Connections(settings.max_connections)
    rounds = Rounds()

    async def handle(stream: Stream) -> None:
        if settings.when_full == "refuse" and not counter.enter(log):
            await refuse(stream, counter)
            return
        try:
            await GuardedConnection(
                wrapped, config, context, state, stream, settings=settings, log=log, rounds=rounds
            ).run()
        finally:
            counter.leave()

    listeners = [_listener(sock, settings, counter) for sock in sockets]
    async with trio.open_nursery() as around:
        around.start_soon(rounds.run)
        await around.start(lifespan.handle_lifespan)
        await lifespan.wait_for_startup()
        async with trio.open_nursery() as handlers:
            async with trio.open_nursery() as accepting:
                accept = partial(trio.serve_listeners, handle, listeners, handler_nursery=handlers)
                await accepting.start(accept)
                task_status.started(urls(sockets))
                await (shutdown_trigger or trio.sleep_forever)()
                handlers.cancel_scope.deadline = trio.current_time() + settings.grace
                await _wait_drained(drain, settings)
                accepting.cancel_scope.cancel(reason="the server shuts down")
            await context.terminated.set()
        if handlers.cancel_scope.cancelled_caught:
            log.warning("connections cut", reason="the grace period of the shutdown ended", grace=settings.grace)
        await lifespan.wait_for_shutdown()
        around.cancel_scope.cancel(reason="the server has shut down")


async def _wait_drained(drain: Drain, settings: ServerSettings) -> None:
    drain.begin()
    with trio.move_on_after(settings.grace):
        await trio.sleep(settings.lame_duck)
        await drain.wait_idle()


def _listener(
    sock: socket.socket, settings: ServerSettings, connections: Connections
) -> trio.abc.Listener[trio.SocketStream]:
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    return PatientListener(listener, connections) if settings.when_full == "wait" else listener


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
