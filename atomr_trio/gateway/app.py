"""The Quart-Trio application: what is set up once, and what surrounds every request."""

import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, cast

import trio
from hypercorn.typing import ASGISendCallable
from quart import Response
from quart.wrappers import Request
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio.wrappers import TrioResponse

from .backend import GatewayBackend
from .guard import Guard
from .logs import Log, stderr_log
from .routes import RELEASE, Gateway, current_request_id, register_routes
from .settings import GatewaySettings

__all__ = ["create_app"]


def create_app(
    backend: GatewayBackend,
    settings: GatewaySettings | None = None,
    *,
    log: Log | None = None,
    clock: Callable[[], float] = time.time,
) -> QuartTrio:
    """Build the HTTP application over a backend.

    Args:
        backend: the runtime.
        settings: limits and habits.
        log: one line per request, and the tracebacks of bugs; standard error unless given.
        clock: Unix seconds, for ``created`` in answers.

    Returns:
        An ASGI application for `atomr_trio.gateway.serve`.
    """
    settings = settings or GatewaySettings()
    log = log or stderr_log()
    gateway = Gateway(backend=backend, settings=settings, log=log, clock=clock)
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
    app.asgi_app = Guard(app.asgi_app, settings, log)
    return app


class _Connection(TrioASGIHTTPConnection):
    """Gives each request a stack of things to leave.

    A handler enters what its streamed answer needs and returns; the response is sent by the same task afterwards.
    The stack spans both, so that the answer is released whatever happens in between.
    """

    async def handle_request(self, nursery: trio.Nursery, request: Request, send: ASGISendCallable) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Handle one request, and send its response."""
        async with AsyncExitStack() as release:
            cast("dict[str, Any]", request.scope)[RELEASE] = release
            await super().handle_request(nursery, request, send)


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
