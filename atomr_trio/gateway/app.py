"""The Quart-Trio application: what is set up once, and what surrounds every request."""

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Any, cast

import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from quart import Response
from quart.typing import ResponseTypes
from quart.utils import encode_headers
from quart.wrappers import Request
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio.wrappers import TrioResponse

from .access import KeyRing, is_public
from .backend import GatewayBackend
from .description import Entrance, describe
from .direct import body_follows, chunk_writer
from .door import Door
from .drain import Drain
from .guard import Guard
from .kept import KeptStreams, Spawn
from .logs import Log, stderr_log
from .metered import MeteredBackend
from .pump import AsgiWriter, EventBody, pump
from .routes import RELEASE, ROUTES, Gateway, current_request_id, register_routes
from .settings import GatewaySettings
from .wire import to_json

__all__ = ["create_app"]


def create_app(
    backend: GatewayBackend,
    settings: GatewaySettings | None = None,
    *,
    log: Log | None = None,
    clock: Callable[[], float] = time.time,
    spawn: Spawn | None = None,
    keys: KeyRing | None = None,
    drain: Drain | None = None,
) -> QuartTrio:
    """Build the HTTP application over a backend.

    Args:
        backend: the runtime.
        settings: limits and habits.
        log: one line per request, and the tracebacks of bugs; standard error unless given.
        clock: Unix seconds, for ``created`` in answers, and for the dates of keys.
        spawn: starts tasks that outlive requests, for ``settings.resume_window``.
        keys: those that are let in; ``None``: everybody is. May change while the application runs.
        drain: the same as the server's, so that both stop together.

    Returns:
        An ASGI application for `atomr_trio.gateway.serve`.

    Raises:
        ValueError: there is a ``resume_window``, and no ``spawn``.
    """
    settings = settings or GatewaySettings()
    log = log or stderr_log()
    drain = drain or Drain()
    entrance = Entrance(partial(is_public, paths=settings.public_paths), keys is not None)
    gateway = Gateway(
        backend=MeteredBackend(backend, drain, settings.assumed_output_tokens, keys is not None),
        settings=settings,
        log=log,
        clock=clock,
        kept=_kept(settings, spawn),
        description=to_json(describe(ROUTES, _version(), entrance)),
    )
    app = _GatewayApp(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.config["BODY_TIMEOUT"] = settings.body_timeout
    # Quart's own limit cuts a stream without a word.
    app.config["RESPONSE_TIMEOUT"] = None
    # A redirect is an HTML page, and API clients do not follow it with a POST.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    register_routes(app, gateway)

    async def refuse(error: Exception) -> Response:
        return gateway.refuse(error, current_request_id())

    app.register_error_handler(Exception, refuse)
    door = Door(settings, keys, drain, clock)
    app.before_request(door.check)
    app.after_request(door.leave)
    app.asgi_app = Guard(app.asgi_app, settings, log, drain)
    return app


def _version() -> str:
    try:
        return version("atomr-trio")
    except PackageNotFoundError:
        return "unknown"


def _kept(settings: GatewaySettings, spawn: Spawn | None) -> KeptStreams | None:
    if not settings.resume_window:
        return None
    if spawn is None:
        raise ValueError("streams that outlive their connections need `spawn`")
    return KeptStreams(spawn, settings.resume_window, settings.resume_bytes, settings.max_resumable)


class _Connection(TrioASGIHTTPConnection):
    """Gives each request a stack of things to leave.

    A handler enters what its streamed answer needs and returns; the response is sent by the same task afterwards.
    The stack spans both, so that the answer is released whatever happens in between.
    """

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Handle one request in this very task, and what else its client sends in another."""
        request = self._create_request_from_scope(send)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.handle_messages, nursery, request, receive)
            await self.handle_request(nursery, request, send)

    async def handle_request(self, nursery: trio.Nursery, request: Request, send: ASGISendCallable) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Handle one request, and send its response."""
        async with AsyncExitStack() as release:
            cast("dict[str, Any]", request.scope)[RELEASE] = release
            await super().handle_request(nursery, request, send)

    async def _send_response(self, send: ASGISendCallable, response: ResponseTypes) -> None:
        body_follows(self.scope)
        body = response.response
        if not isinstance(body, EventBody):
            await super()._send_response(send, response)
            return
        headers = encode_headers(response.headers)
        await send(
            {"type": "http.response.start", "status": response.status_code, "headers": headers, "trailers": False}
        )
        async with body:
            await pump(body, chunk_writer(self.scope) or AsgiWriter(send))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _JsonResponse(TrioResponse):
    default_mimetype = "application/json"


class _GatewayApp(QuartTrio):
    asgi_http_class = _Connection
    response_class = _JsonResponse

    def log_exception(
        self,
        exception_info: tuple[type, BaseException, TracebackType] | tuple[None, None, None],
    ) -> None:
        """Nothing: failures are logged where they are turned into answers."""
