"""Errors in the words of the API that was spoken to: one table makes them, and here they are translated at the edge."""

from typing import Any

import msgspec
from attrs import evolve

from .errors import ErrorReply
from .wire import Failure, messages_error, messages_status, to_json

__all__ = ["is_messages_api", "translated"]

_MESSAGES = "/v1/messages"
_ABOUT_THE_BODY = frozenset({"content-type", "content-length"})


def is_messages_api(path: str) -> bool:
    """Whether clients of this path speak Anthropic's dialect."""
    return path == _MESSAGES or path.startswith(f"{_MESSAGES}/")


def translated(reply: ErrorReply, path: str, request_id: str) -> ErrorReply:
    """The reply as clients of this path expect it.

    Args:
        reply: from `error_reply` or `reply_to_http_exception`.
        path: that was asked for.
        request_id: told in the body.
    """
    if not is_messages_api(path):
        return reply
    body: dict[str, Any] = msgspec.json.decode(reply.body)
    failure = Failure(reply.status, body["error"], request_id)
    encoded = to_json(messages_error(failure))
    others = tuple((name, value) for name, value in reply.headers if name not in _ABOUT_THE_BODY)
    about = (("content-type", "application/json"), ("content-length", str(len(encoded))))
    return evolve(
        reply, status=messages_status(failure.status, failure.error["code"]), headers=(*about, *others), body=encoded
    )
