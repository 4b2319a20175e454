"""The OpenAI API as a benchmark speaks it: bodies out, events in, statuses to errors. Pure."""

import json
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from attrs import frozen

from atomr_trio.core import (
    BadRequest,
    Forbidden,
    InferenceError,
    NetworkError,
    RateLimited,
    ServerError,
    Unauthorized,
)

from ._bench_prompts import Prompt

__all__ = ["ENDPOINTS", "Endpoint", "Event", "base_url", "error_of_status", "read_event", "request_body"]

Endpoint = Literal["completions", "chat"]
ENDPOINTS: dict[Endpoint, str] = {"completions": "completions", "chat": "chat/completions"}
"""The path of each kind of request, below the base."""

_PROVIDER = "the server"


def base_url(url: str) -> str:
    """Return where the API begins: a bare address gets the usual ``/v1``, a path is taken as it is."""
    path = urlsplit(url).path.rstrip("/")
    return url.rstrip("/") + ("" if path else "/v1") + "/"


def request_body(endpoint: Endpoint, model: str, prompt: Prompt, max_tokens: int, *, ignore_eos: bool) -> bytes:
    """Return the JSON of a greedy streaming request that ends with its usage.

    ``ignore_eos`` is not OpenAI's, so it is left out when it is not wanted.
    """
    asked = {"prompt": prompt} if endpoint == "completions" else {"messages": [{"role": "user", "content": prompt}]}
    body: dict[str, Any] = {
        "model": model,
        **asked,
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return json.dumps({**body, "ignore_eos": True} if ignore_eos else body).encode()


@frozen
class Event:
    """What one server-sent event says.

    Args:
        news: it brings something of the answer: text, or a token that has none yet.
        choice: it belongs to the answer, also if it brings nothing, as the chunk with the finish reason.
        usage: tokens of prompt and answer, and how many of the prompt were cached.
        failure: the answer failed, or this is not what the API sends. A value, so that its reader can read on to the
            end and leave the connection in order.
    """

    news: bool = False
    choice: bool = False
    usage: tuple[int, int, int] | None = None
    failure: InferenceError | None = None


def read_event(line: str) -> Event:
    """Read one line of a stream. Comments, blank lines, other fields and ``[DONE]`` are events without news."""
    data = line.removeprefix("data:").strip()
    if not line.startswith("data:") or data == "[DONE]":
        return Event()
    try:
        return _read_object(json.loads(data))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        return Event(failure=NetworkError("the server's stream is not one of the OpenAI API"))


def _read_object(found: dict[str, Any]) -> Event:
    if found.get("error"):
        return Event(failure=ServerError(500, str(found["error"].get("message"))))
    choices = cast("list[dict[str, Any]]", found.get("choices") or [])
    usage = found.get("usage")
    return Event(
        news=any(map(_has_news, choices)), choice=bool(choices), usage=None if usage is None else _read_usage(usage)
    )


def _has_news(choice: dict[str, Any]) -> bool:
    delta: dict[str, Any] = choice.get("delta") or {}
    said = choice.get("text") or delta.get("content") or delta.get("reasoning_content") or delta.get("tool_calls")
    # A token of half a character has no text. But a chat's first chunk only says who speaks, and the last one why it
    # ends.
    return bool(said) or ("role" not in delta and choice.get("finish_reason") is None)


def _read_usage(usage: dict[str, Any]) -> tuple[int, int, int]:
    details: dict[str, Any] = usage.get("prompt_tokens_details") or {}
    return usage["prompt_tokens"], usage["completion_tokens"], details.get("cached_tokens") or 0


def error_of_status(status: int, body: bytes, retry_after: str | None = None) -> InferenceError:
    """Return the typed error for a refusal, with what the server said."""
    said = _message(body) or f"the server answers {status}"
    match status:
        case 401:
            return Unauthorized(said)
        case 403:
            return Forbidden(said)
        case 429:
            after = retry_after if retry_after and retry_after.isdecimal() else None
            return RateLimited(_PROVIDER, None if after is None else float(after))
        case _ if status < 500:
            return BadRequest(said)
        case _:
            return ServerError(status, said)


def _message(body: bytes) -> str | None:
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, TypeError, KeyError):
        return None
    return message if isinstance(message, str) else None
