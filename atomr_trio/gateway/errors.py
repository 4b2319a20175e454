"""One table from typed errors to HTTP, and the bodies that clients get."""

import math
import time
from collections.abc import Callable
from typing import Any, cast

import msgspec
from attrs import evolve, frozen
from werkzeug.exceptions import HTTPException

from atomr_trio import core

from .access import InvalidApiKey, QuotaExhausted, QuotaHeld, RequestsLimited, TokensLimited, TooLargeForLimit
from .replay import ReplayGone, StreamNotFound

__all__ = [
    "ErrorReply",
    "Outcome",
    "as_inference_error",
    "error_object",
    "error_reply",
    "error_status",
    "outcome_of",
    "reply_to_http_exception",
    "typed_errors",
]

INVALID = "invalid_request_error"
SERVER = "server_error"


@frozen
class ErrorReply:
    """An error as it goes over the wire: a status, headers, and an OpenAI-shaped JSON body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


Text = Callable[[Any], str]
RetryAfter = Callable[[Any, float], float | None]


def _never(_error: Any, _now: float) -> float | None:
    return None


def _as_said(error: Any, _now: float) -> float | None:
    return error.retry_after


def _when_the_circuit_closes(error: core.CircuitOpen, now: float) -> float:
    return error.retry_at_unix_ms / 1000 - now


def _soon(_error: Any, _now: float) -> float:
    return 1.0


def _says(text: str) -> Text:
    return lambda _error: text


@frozen(kw_only=True)
class _Row:
    status: int
    type: str
    code: str | None = None
    param: str | None = None
    text: Text = str
    retry_after: RetryAfter = _never
    headers: tuple[tuple[str, str], ...] = ()


_UPSTREAM = _Row(status=502, type=SERVER, code="upstream_error", text=_says("the upstream provider failed to answer"))
_UNAVAILABLE = _Row(status=503, type=SERVER, code="model_unavailable", retry_after=_soon)
_LOST = _says("the device that computed this answer was lost; it is being restarted")

# An error is looked up by its class, then by its bases, so a new subclass inherits its parent's row.
_TABLE: dict[type[core.InferenceError], _Row] = {
    core.ModelNotFound: _Row(status=404, type=INVALID, code="model_not_found", param="model"),
    core.BadRequest: _Row(status=400, type=INVALID, text=lambda error: error.message),
    core.Unsupported: _Row(status=400, type=INVALID, code="unsupported"),
    core.ContextLengthExceeded: _Row(
        status=400,
        type=INVALID,
        code="context_length_exceeded",
        text=lambda error: (
            f"this model's context is {error.max_tokens} tokens, but the request needs {error.tokens}; "
            "shorten the prompt or ask for fewer tokens"
        ),
    ),
    core.ContentFiltered: _Row(status=400, type=INVALID, code="content_filter"),
    core.RateLimited: _Row(status=429, type="requests", code="rate_limit_exceeded", retry_after=_as_said),
    core.BudgetExceeded: _Row(
        status=429,
        type="insufficient_quota",
        code="insufficient_quota",
        # Waiting does not refill a budget; without this, clients would try again at once.
        headers=(("x-should-retry", "false"),),
    ),
    core.Backpressure: _Row(status=503, type=SERVER, code="overloaded", retry_after=_as_said),
    core.CircuitOpen: evolve(
        _UNAVAILABLE,
        text=_says("the upstream provider is failing; requests to it are suspended"),
        retry_after=_when_the_circuit_closes,
    ),
    core.DeploymentUnavailable: evolve(_UNAVAILABLE, text=str, retry_after=_as_said),
    core.CudaContextPoisoned: evolve(_UNAVAILABLE, text=_LOST),
    core.OutOfMemory: evolve(_UNAVAILABLE, text=_says("the device ran out of memory; try again, or ask for less")),
    core.Unrecoverable: evolve(_UNAVAILABLE, text=_says("this model cannot be served"), retry_after=_never),
    core.RequestQuarantined: _Row(
        status=500,
        type=SERVER,
        code="request_quarantined",
        text=str,
        # Clients try a 500 again by themselves, and this one would cost the others another restart.
        headers=(("x-should-retry", "false"),),
    ),
    InvalidApiKey: _Row(status=401, type=INVALID, code="invalid_api_key", headers=(("www-authenticate", "Bearer"),)),
    RequestsLimited: _Row(status=429, type="requests", code="rate_limit_exceeded", retry_after=_as_said),
    TokensLimited: _Row(status=429, type="tokens", code="rate_limit_exceeded", retry_after=_as_said),
    TooLargeForLimit: _Row(
        status=429, type="tokens", code="rate_limit_exceeded", headers=(("x-should-retry", "false"),)
    ),
    QuotaHeld: _Row(status=429, type="tokens", code="rate_limit_exceeded", retry_after=_as_said),
    QuotaExhausted: _Row(
        status=429,
        type="insufficient_quota",
        code="insufficient_quota",
        headers=(("x-should-retry", "false"),),
    ),
    StreamNotFound: _Row(status=404, type=INVALID, code="stream_not_found"),
    ReplayGone: _Row(status=410, type=INVALID, code="replay_gone"),
    core.Timeout: _Row(status=504, type=SERVER, code="timeout"),
    # Whatever went wrong between us and the provider, the client's own key is not to blame.
    core.NetworkError: _UPSTREAM,
    core.ServerError: _UPSTREAM,
    core.Unauthorized: evolve(_UPSTREAM, text=_says("the upstream provider refused this server's credentials")),
    core.Forbidden: evolve(_UPSTREAM, text=_says("the upstream provider refused this server's credentials")),
}
_BUG = _Row(status=500, type=SERVER)

_HTTP_TEXTS = {
    404: "there is nothing under this URL",
    405: "this URL does not take this method",
    408: "the request's body did not arrive in time",
    413: "the request's body is too large",
    415: "the request's body is encoded in a way that this server does not read",
}


@frozen
class Outcome:
    """How a kind of error ends a request: the HTTP status, the code, and whether the answer may say when to retry."""

    status: int
    code: str | None
    may_say_when: bool


def typed_errors() -> tuple[type[core.InferenceError], ...]:
    """The kinds of errors that have a status of their own."""
    return tuple(_TABLE)


def outcome_of(kind: type[BaseException]) -> Outcome:
    """What a client gets for this kind of error: one of `typed_errors`, of the HTTP framework's, or any other."""
    if issubclass(kind, HTTPException):
        return Outcome(kind.code or 500, None, may_say_when=False)
    row = _row_of_kind(kind)
    return Outcome(row.status, row.code, may_say_when=row.retry_after is not _never)


def as_inference_error(error: BaseException) -> core.InferenceError | None:
    """The typed error in what was raised: itself, or the single leaf of its groups; ``None`` for a bug."""
    while isinstance(error, BaseExceptionGroup):
        leaves = cast("BaseExceptionGroup[BaseException]", error).exceptions
        if len(leaves) != 1:
            return None
        error = leaves[0]
    return error if isinstance(error, core.InferenceError) else None


def _row_of(error: core.InferenceError | None) -> _Row:
    return _row_of_kind(type(error))


def _row_of_kind(kind: type[BaseException] | type[None]) -> _Row:
    return next((_TABLE[cls] for cls in kind.__mro__ if cls in _TABLE), _BUG)


def error_status(error: BaseException) -> int:
    """The HTTP status of what was raised, when there is still one to send."""
    return _row_of(as_inference_error(error)).status


def error_object(error: BaseException, request_id: str, *, prompt_param: str | None = None) -> dict[str, Any]:
    """The JSON object ``{"error": …}`` for what was raised.

    Args:
        error: a typed error, or a bug, of which nothing is told.
        request_id: named in the text of a bug, so that the operator can find the traceback in the log.
        prompt_param: the field that holds the prompt, for errors about its length.
    """
    typed = as_inference_error(error)
    row = _row_of(typed)
    fields: dict[str, Any] = {
        "message": f"the server failed on this request; its log has the details under {request_id}",
        "type": row.type,
        "param": row.param,
        "code": row.code,
    }
    if row is not _BUG:
        fields["message"] = row.text(typed)
    if isinstance(typed, core.BadRequest):
        fields["param"] = typed.param
    if isinstance(typed, core.ContextLengthExceeded):
        fields |= {"param": prompt_param, "n_prompt_tokens": typed.tokens, "n_ctx": typed.max_tokens}
    return {"error": fields}


def error_reply(
    error: BaseException, request_id: str, *, prompt_param: str | None = None, now: float | None = None
) -> ErrorReply:
    """The whole HTTP answer to what was raised before the first token.

    Args:
        error: as in `error_object`, which makes the body.
        request_id: as in `error_object`.
        prompt_param: as in `error_object`.
        now: Unix seconds, for errors that say until when; the wall clock unless given.
    """
    typed = as_inference_error(error)
    row = _row_of(typed)
    wait = row.retry_after(typed, time.time() if now is None else now)
    headers = row.headers if wait is None else (*row.headers, *_retry_headers(wait))
    return _reply(row.status, headers, error_object(error, request_id, prompt_param=prompt_param))


def reply_to_http_exception(error: HTTPException) -> ErrorReply:
    """The same for what the HTTP framework refuses: unknown URLs, methods, sizes."""
    status = error.code or 500
    text = _HTTP_TEXTS.get(status) or (error.description or error.name).lower()
    code = "unknown_url" if status == 404 else None
    fields = {"message": text, "type": INVALID if status < 500 else SERVER, "param": None, "code": code}
    allow = tuple((name, value) for name, value in error.get_headers() if name.lower() == "allow")
    return _reply(status, allow, {"error": fields})


def _retry_headers(seconds: float) -> tuple[tuple[str, str], ...]:
    # At least a second: `retry-after: 0` is read as "no advice" by the official clients.
    whole = max(1, math.ceil(seconds))
    return (("retry-after", str(whole)), ("retry-after-ms", str(max(1, math.ceil(seconds * 1000)))))


def _reply(status: int, headers: tuple[tuple[str, str], ...], body: dict[str, Any]) -> ErrorReply:
    encoded = msgspec.json.encode(body)
    standard = (("content-type", "application/json"), ("content-length", str(len(encoded))))
    return ErrorReply(status, (*standard, *headers), encoded)
