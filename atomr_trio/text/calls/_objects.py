"""Calls that are written as JSON: ``{"name": …, "arguments": {…}}``, alone or in an array."""

from collections.abc import Mapping
from typing import Any

from atomr_trio.core import Called
from atomr_trio.text.feed import Feed, Reading
from atomr_trio.text.json_scan import json_items, json_members, json_value, take_json

__all__ = ["arguments_of", "calls_in", "take_calls"]

# A call begins with one of these: another object is known to be none by its first key, and is not held back.
_KEYS = frozenset({"name", "arguments", "parameters", "type", "function", "id"})


def take_calls(feed: Feed) -> Reading[list[Called] | None]:
    """Take an object or array of calls; ``None``: it is none."""
    text = yield from take_json(feed, _KEYS)
    return None if text is None else calls_in(text)


def calls_in(text: str) -> list[Called] | None:
    """Return the calls that the text of an object or array spells; ``None``: not all of it are calls."""
    try:
        value = json_value(text)
        calls = [_call(item) for item in json_items(text)] if isinstance(value, list) else [_call(text)]
    except ValueError:
        return None
    return calls or None


def _call(text: str) -> Called:
    members: Mapping[str, tuple[Any, str]] = {key: (value, own) for key, value, own in json_members(text)}
    function, own = members.get("function", (None, ""))
    if isinstance(function, dict):
        return _call(own)
    name = members.get("name", (function, ""))[0]
    if not isinstance(name, str):
        raise ValueError("it names no function")
    return Called(name, arguments_of(*(members.get("arguments") or members.get("parameters") or (None, ""))))


def arguments_of(value: Any, text: str) -> str:
    """Return the arguments as the text of an object.

    Args:
        value: what the model gave: an object, the text of one, or nothing.
        text: how it wrote that.

    Raises:
        ValueError: it is something else.
    """
    if value is None or value == "":
        return "{}"
    if isinstance(value, str):
        value, text = json_value(value), value.strip()
    if not isinstance(value, dict):
        raise ValueError("the arguments are no object")
    return text
