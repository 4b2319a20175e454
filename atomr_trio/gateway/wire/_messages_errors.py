"""Errors as ``/v1/messages`` tells them: other statuses, other types, the same texts."""

from ._failure import Failure
from ._messages_objects import ErrorEvent, ErrorFields

__all__ = ["messages_error", "messages_status"]

# Overload has a status of its own in this API, and what an upstream does wrong is told as our own failure.
_STATUSES = {502: 500, 503: 529}
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def messages_status(status: int, code: str | None) -> int:
    """The HTTP status that this API has for what has this status and this code in OpenAI's."""
    return 402 if code == "insufficient_quota" else _STATUSES.get(status, status)


def messages_error(failure: Failure) -> ErrorEvent:
    """The error object, also of an error in mid-stream."""
    status = messages_status(failure.status, failure.error["code"])
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "api_error")
    return ErrorEvent(ErrorFields(kind, _text(failure)), failure.request_id)


def _text(failure: Failure) -> str:
    # The type is all that clients can branch on here, so the field that is wrong must be in the text.
    param = failure.error["param"]
    return failure.message if not param or param in failure.message else f"{param}: {failure.message}"
