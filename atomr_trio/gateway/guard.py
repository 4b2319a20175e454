"""What wraps the whole HTTP application: request ids, the access line, whole request bodies, and no bare failure.

An answer that is sent before the request's body has arrived wedges the connection for its next request. So the guard
holds an early answer back until the body is in; if it is too large or too slow, the answer says that it closes the
connection, and the driver does so.
"""

import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, cast

import trio
from attrs import define, field
from hypercorn.typing import (
    ASGIFramework,
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    Scope,
)

from atomr_trio.core import BadRequest

from .access import limit_headers
from .dialects import is_messages_api, translated
from .drain import Drain
from .errors import error_reply
from .logs import Log
from .notes import Note, take_note
from .settings import GatewaySettings

__all__ = ["Guard", "request_id_of"]

REQUEST_ID = "atomr_trio.request_id"
_SANE_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,128}")
# These answers are themselves the verdict that waiting for the body is no use.
_BODY_IS_HOPELESS = frozenset({408, 413})
# Strangers do not make us read more than this before they are told that they are strangers.
_STRANGERS_BODY = 64 * 1024
_CLIENT_LEFT = 499
# A target may be a whole URL, which proxies send; its host is not looked at.
_WHOLE_URL = re.compile(r"https?://[^/]*(/.*)?", re.IGNORECASE | re.DOTALL)
_NO_TARGET = BadRequest("the request's target is neither a path nor a URL")


def request_id_of(scope: Scope) -> str:
    """The id under which this request is logged and answered."""
    return cast("dict[str, Any]", scope)[REQUEST_ID]


@define
class Guard:
    """An ASGI application around another one.

    Args:
        app: the application; its HTTP handlers read the request's body while they work.
        settings: limits.
        log: where the access lines and the application's failures go.
        drain: counts the requests, and says when connections shall end.
    """

    _app: ASGIFramework
    _settings: GatewaySettings
    _log: Log
    _drain: Drain = field(factory=Drain)

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "websocket":
            # No route speaks it. Hypercorn answers the handshake with 403.
            await send({"type": "websocket.close", "code": 1000, "reason": None})
        elif scope["type"] == "http":
            inside = cast("dict[str, Any]", scope)
            note = take_note(inside, self._settings.trusted_proxies)
            exchange = _Exchange(self._settings, self._log, self._drain, inside, note, receive, send)
            await exchange.run(self._app)
        else:
            await self._app(scope, receive, send)


@define
class _Exchange:
    """One request and its response."""

    _settings: GatewaySettings
    _log: Log
    _drain: Drain
    _scope: dict[str, Any]
    _note: Note
    _receive: Callable[[], Awaitable[ASGIReceiveEvent]]
    _send: Callable[[ASGISendEvent], Awaitable[None]]
    _status: int = 0
    _received: int = 0
    _whole: bool = False
    # The body is whole, or it is clear that we do not want the rest of it.
    _settled: trio.Event = field(factory=trio.Event)

    async def run(self, app: ASGIFramework) -> None:
        self._scope[REQUEST_ID] = _choose_id(self._scope["headers"])
        counted = self._drain.enter()
        try:
            if (path := _path_of(self._scope["path"])) is None:
                await self._apologise(_NO_TARGET)
            else:
                self._scope["path"] = path
                await app(cast("Scope", self._scope), self.receive, self.send)
        except* Exception as errors:
            self._log.error("request failed", request_id=self._scope[REQUEST_ID], exc_info=errors)
            await self._apologise(errors)
        finally:
            if counted:
                self._drain.leave()
            self._write_access_line()

    async def receive(self) -> ASGIReceiveEvent:
        event = await self._receive()
        if event["type"] == "http.request":
            self._received += len(event.get("body", b""))
            self._whole = not event.get("more_body", False)
            if self._whole or self._received > self._settings.max_body_bytes:
                self._settled.set()
        else:
            self._settled.set()
        return event

    async def send(self, event: ASGISendEvent) -> None:
        if event["type"] == "http.response.start":
            status = int(event["status"])
            await self._wait_for_the_body(status)
            event["headers"] = self._headers(event.get("headers", []))
            self._status = status
        await self._send(event)

    async def _wait_for_the_body(self, status: int) -> None:
        hopeless = status in _BODY_IS_HOPELESS or (
            status == 401 and _is_longer(self._scope["headers"], _STRANGERS_BODY)
        )
        if not self._whole and not hopeless:
            with trio.move_on_after(self._settings.drain_timeout):
                await self._settled.wait()

    def _headers(self, given: Any) -> list[tuple[bytes, bytes]]:
        headers = [(name, value) for name, value in given if name.lower() != b"x-request-id"]
        request_id = self._scope[REQUEST_ID].encode("ascii")
        headers.append((b"x-request-id", request_id))
        if is_messages_api(self._scope["path"]):
            headers.append((b"request-id", request_id))
        headers += self._settings.cors.headers(self._scope["headers"])
        if self._note.account is not None:
            headers += limit_headers(self._note.account, trio.current_time())
        # HTTP/2 forbids the header and needs it not: its streams do not block each other.
        if (not self._whole or self._drain.draining) and self._scope["http_version"] < "2":
            headers.append((b"connection", b"close"))
        return headers

    async def _apologise(self, errors: BaseException) -> None:
        # After the headers there is nothing left to say; Hypercorn then closes the connection without a proper end,
        # which is how a client knows that the answer is not whole.
        if self._status:
            return
        with trio.move_on_after(self._settings.drain_timeout):
            # The application is gone, so nobody else reads the body now.
            while not self._settled.is_set():
                await self.receive()
        self._settled.set()
        request_id = self._scope[REQUEST_ID]
        reply = translated(error_reply(errors, request_id), self._scope["path"], request_id)
        headers = [(name.encode("ascii"), value.encode("ascii")) for name, value in reply.headers]
        await self.send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": reply.body, "more_body": False})

    def _write_access_line(self) -> None:
        if self._settings.access_log:
            self._log.info(
                "request",
                method=self._scope["method"],
                path=self._scope["path"],
                status=self._status or _CLIENT_LEFT,
                ms=round((trio.current_time() - self._note.began) * 1000, 1),
                request_id=self._scope[REQUEST_ID],
                **self._note.line(),
            )


def _path_of(target: str) -> str | None:
    if target.startswith("/") or target == "*":
        return target
    url = _WHOLE_URL.fullmatch(target)
    return None if url is None else url[1] or "/"


def _is_longer(headers: Any, limit: int) -> bool:
    """Whether a body is announced that is longer, or that does not say how long it is."""
    announced = {
        name.lower(): value for name, value in headers if name.lower() in {b"content-length", b"transfer-encoding"}
    }
    length = announced.get(b"content-length", b"0")
    return b"transfer-encoding" in announced or not length.isdigit() or len(length) > 9 or int(length) > limit


def _choose_id(headers: Any) -> str:
    for name, value in headers:
        if name.lower() == b"x-request-id" and _SANE_ID.fullmatch(value):
            return value.decode("ascii")
    return f"req-{uuid.uuid4().hex}"
