"""Server-sent events, as bytes."""

from typing import Any, Final, Self

import msgspec
from attrs import frozen

__all__ = ["DONE", "MARK", "PING", "TextFrame", "event", "named_event", "tagged_event", "to_json"]

DONE: Final = b"data: [DONE]\n\n"
# A comment: every client skips it, and every proxy on the way sees that the stream lives.
PING: Final = b": ping\n\n"
MARK: Final = "\0text\0"


def to_json(value: Any) -> bytes:
    """JSON in UTF-8, on one line."""
    return msgspec.json.encode(value)


@frozen
class TextFrame:
    """What is around the text in events that are the same but for their text."""

    _before: bytes
    _after: bytes

    @classmethod
    def around(cls, event: bytes) -> Self:
        """Take the frame of an event whose text is ``MARK``."""
        # The last one: of what comes before the text, a client may have chosen some.
        before, _, after = event.rpartition(to_json(MARK))
        return cls(before, after)

    def fill(self, text: str) -> bytes:
        """Return the event with this text."""
        return b"%b%b%b" % (self._before, to_json(text), self._after)


def named_event(name: str, value: Any) -> bytes:
    """One event of this name with ``value`` as its JSON data."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), to_json(value))


def tagged_event(value: msgspec.Struct) -> bytes:
    """One event whose name is its object's ``type``, the tag of its class."""
    return named_event(str(value.__struct_config__.tag), value)


def event(value: Any) -> bytes:
    """One event with ``value`` as its JSON data. JSON has no raw line ends, so one ``data:`` line is enough."""
    return b"data: %b\n\n" % to_json(value)
