"""What every route has at hand: the backend, the settings, and how to answer."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, Concatenate, ParamSpec, Self, TypeVar, cast

import trio
from attrs import frozen
from hypercorn.typing import Scope
from quart import Response, request
from quart.wrappers.response import ResponseBody
from werkzeug.exceptions import HTTPException, UnsupportedMediaType

from atomr_trio.core import BadRequest, Internal
from atomr_trio.gateway.backend import GatewayBackend
from atomr_trio.gateway.dialects import translated
from atomr_trio.gateway.errors import (
    ErrorReply,
    as_inference_error,
    error_object,
    error_reply,
    error_status,
    reply_to_http_exception,
)
from atomr_trio.gateway.guard import request_id_of
from atomr_trio.gateway.kept import KeptStreams
from atomr_trio.gateway.logs import Log
from atomr_trio.gateway.notes import note_of
from atomr_trio.gateway.settings import GatewaySettings
from atomr_trio.gateway.wire import Failure

__all__ = [
    "RELEASE",
    "Gateway",
    "Nothing",
    "current_owner",
    "current_request_id",
    "decoded_body",
    "event_stream",
    "json_response",
    "no_content",
    "release_of",
    "to_response",
    "view",
]

RELEASE = "atomr_trio.release"
# Decoding this much JSON takes about as long as a hop to a worker thread and back matters to nobody.
LARGE_BODY = 512 * 1024

P = ParamSpec("P")
T = TypeVar("T")


@frozen(kw_only=True)
class Gateway:
    """Shared by all requests. ``kept`` has the streams that may be gone on with; ``None``: there are none.

    ``description`` is what `/openapi.json` answers.
    """

    backend: GatewayBackend
    settings: GatewaySettings
    log: Log
    clock: Callable[[], float]
    kept: KeptStreams | None = None
    description: bytes = b"{}"

    def refuse(self, error: Exception, request_id: str, prompt_param: str | None = None) -> Response:
        """The answer to a request that failed before its first token."""
        if isinstance(error, HTTPException):
            reply = reply_to_http_exception(error)
        else:
            self._note(error, request_id)
            reply = error_reply(error, request_id, prompt_param=prompt_param, now=self.clock())
        return to_response(translated(reply, request.path, request_id))

    def tell(self, error: Exception, request_id: str, prompt_param: str | None = None) -> Failure:
        """What is told of a request that failed in mid-stream."""
        self._note(error, request_id)
        told = error_object(error, request_id, prompt_param=prompt_param)
        return Failure(error_status(error), told["error"], request_id)

    def _note(self, error: Exception, request_id: str) -> None:
        typed = as_inference_error(error)
        if typed is None or isinstance(typed, Internal):
            self.log.error("request failed", request_id=request_id, exc_info=error)


def view(
    gateway: Gateway,
    handler: Callable[Concatenate[Gateway, P], Awaitable[Response]],
    *,
    prompt_param: str | None = None,
) -> Callable[P, Awaitable[Response]]:
    """A Quart view that calls ``handler(gateway, …)`` and turns whatever it raises into an answer."""

    async def run(*args: P.args, **kwargs: P.kwargs) -> Response:
        try:
            return await handler(gateway, *args, **kwargs)
        except Exception as error:
            return gateway.refuse(error, current_request_id(), prompt_param)

    return run


def current_request_id() -> str:
    """The id of the request that is being handled. Quart knows it up to the response's headers, not beyond."""
    return request_id_of(cast("Scope", request.scope))


def current_owner() -> str:
    """Whose request is being handled; empty where there are no keys."""
    return note_of(request.scope).owner


def release_of() -> AsyncExitStack:
    """What the current request holds open until its response has ended, however it ends."""
    return cast("dict[str, Any]", request.scope)[RELEASE]


async def decoded_body(decode: Callable[[bytes], T]) -> T:
    """Read the request's whole body and decode it. Its content type does not matter, as with other servers.

    Raises:
        BadRequest: the body is empty, or what ``decode`` raises.
        HTTPException: it is too large, too slow, or compressed.
    """
    if request.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
        raise UnsupportedMediaType
    body = cast("bytes", await request.get_data())
    if not body:
        raise BadRequest("the request's body is empty; it must be a JSON object")
    if len(body) > LARGE_BODY:
        return await trio.to_thread.run_sync(decode, body)
    return decode(body)


def json_response(body: bytes, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(body, status=status, content_type="application/json")


class Nothing(ResponseBody):
    """A body of no bytes. Quart's own for this needs an event loop of asyncio's."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """Nothing.

        Raises:
            StopAsyncIteration: at once.
        """
        raise StopAsyncIteration


def no_content() -> Response:
    """The answer 204."""
    response = Response(Nothing(), status=204)
    del response.headers["content-type"]
    return response


def event_stream(body: ResponseBody, kept_as: str | None = None) -> Response:
    """A stream of server-sent events; ``kept_as`` is the id under which the client can go on with it."""
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    if kept_as is not None:
        headers["x-stream-id"] = kept_as
    response = Response(body, headers=headers, content_type="text/event-stream; charset=utf-8")
    response.timeout = None
    return response


def to_response(reply: ErrorReply) -> Response:
    """An error in Quart's form."""
    return Response(reply.body, status=reply.status, headers=dict(reply.headers))
