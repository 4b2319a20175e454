"""Server-sent events, as bytes."""

from typing import Any, Final

import msgspec

__all__ = ["DONE", "PING", "event", "to_json"]

DONE: Final = b"data: [DONE]\n\n"
# A comment: every client skips it, and every proxy on the way sees that the stream lives.
PING: Final = b": ping\n\n"


def to_json(value: Any) -> bytes:
    """JSON in UTF-8, on one line."""
    return msgspec.json.encode(value)


def event(value: Any) -> bytes:
    """One event with ``value`` as its JSON data. JSON has no raw line ends, so one ``data:`` line is enough."""
    return b"data: %b\n\n" % to_json(value)
