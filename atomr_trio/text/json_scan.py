"""JSON inside of other text: where a value ends, found while it comes, and what its members are."""

import json
import re
from collections.abc import Iterator
from typing import Any

from attrs import define, field

from .feed import Feed, Reading

__all__ = ["JsonScan", "json_items", "json_members", "json_value", "take_json"]

_OUTSIDE = re.compile(r"[\s0-9A-Za-z:,.+\-]*")
_INSIDE = re.compile(r'[^"\\]*')
_CLOSING = {"{": "}", "[": "]"}
_SPACE = re.compile(r"[ \t\n\r]*")


@define
class JsonScan:
    """Finds the end of an object or array. It looks at brackets and strings only; whether it is JSON is for a parser.

    Args:
        first: what the first string must be one of, which is a key if there is one; ``None``: anything.
    """

    _first: frozenset[str] | None = None
    _open: list[str] = field(factory=list[str], init=False)
    _string: list[str] | None = field(default=None, init=False)
    _escaped: bool = field(default=False, init=False)
    _began: bool = field(default=False, init=False)
    broken: bool = field(default=False, init=False)
    """It cannot become such a value any more."""

    def push(self, text: str) -> int:
        """Go on through the text; return where in it the value ends, or is broken, and -1 if it goes on."""
        at = 0
        while at < len(text):
            at = self._in_string(text, at) if self._string is not None else self._outside(text, at)
            if self.broken or (self._string is None and not self._open):
                return at
        return -1

    def _outside(self, text: str, at: int) -> int:
        found = _OUTSIDE.match(text, at)
        at = found.end() if found else at
        if at == len(text):
            return at
        letter = text[at]
        if letter in _CLOSING:
            self._open.append(_CLOSING[letter])
        elif letter == '"':
            self._string = []
        elif self._open and letter == self._open[-1]:
            self._open.pop()
        else:
            self.broken = True
            return at
        return at + 1

    def _in_string(self, text: str, at: int) -> int:
        assert self._string is not None
        if self._escaped:
            self._escaped = False
            return at + 1
        found = _INSIDE.match(text, at)
        end = found.end() if found else at
        if not self._began:
            self._string.append(text[at:end])
        if end == len(text):
            return end
        if text[end] == "\\":
            self._escaped = True
        else:
            self._close_string()
        return end + 1

    def _close_string(self) -> None:
        if self._first is not None and not self._began:
            self.broken = "".join(self._string or ()) not in self._first
        self._began, self._string = True, None


def take_json(feed: Feed, first: frozenset[str] | None = None) -> Reading[str | None]:
    """Take an object or array.

    Args:
        feed: where it is to come next.
        first: what its first key must be one of; ``None``: anything.

    Returns:
        Its text, or ``None`` if it is none; what was taken of it is taken.
    """
    opening = yield from feed.peek(1)
    if opening not in _CLOSING:
        return None
    scan, parts = JsonScan(first), list[str]()
    while True:
        waiting = yield from feed.peek(max(1, feed.available))
        end = scan.push(waiting)
        parts.append(feed.take(len(waiting) if end < 0 else end))
        if end >= 0:
            return None if scan.broken else "".join(parts)
        if not (yield from feed.more()):
            return None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def json_value(text: str) -> Any:
    """Return what the text says.

    Raises:
        ValueError: it is not JSON, or too deep.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def json_members(text: str) -> Iterator[tuple[str, Any, str]]:
    """Yield key, value and the value's own text for each member of an object, whose text is valid."""
    at = _space(text, _space(text, 0) + 1)
    while text[at] != "}":
        key, at = _DECODER.raw_decode(text, at)
        begin = _space(text, _space(text, at) + 1)
        value, end = _DECODER.raw_decode(text, begin)
        yield key, value, text[begin:end]
        at = _space(text, end)
        if text[at] == ",":
            at = _space(text, at + 1)


def json_items(text: str) -> Iterator[str]:
    """Yield each item's own text of an array, whose text is valid."""
    at = _space(text, _space(text, 0) + 1)
    while text[at] != "]":
        end = _DECODER.raw_decode(text, at)[1]
        yield text[at:end]
        at = _space(text, end)
        if text[at] == ",":
            at = _space(text, at + 1)


def _space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at
