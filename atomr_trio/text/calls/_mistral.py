"""Mistral: ``[TOOL_CALLS][{…}, {…}]``, and in newer models ``[TOOL_CALLS]name[ARGS]{…}`` for each call."""

import re

from attrs import evolve

from atomr_trio.core import Called
from atomr_trio.text.feed import Feed, Reading
from atomr_trio.text.json_scan import json_value, take_json

from ._form import CallForm, Offered
from ._layout import NAMED, Layout
from ._objects import arguments_of, take_calls
from ._space import SPACE

__all__ = ["MISTRAL", "MISTRAL_ARGS"]

_NAME = re.compile(r"[0-9A-Za-z_.\-]*")


def _read(feed: Feed, opening: str, offered: Offered) -> Reading[list[Called] | None]:
    yield from feed.span(SPACE)
    if (yield from feed.peek(1)) in ("[", "{"):
        return (yield from take_calls(feed))
    return (yield from _read_named(feed))


def _read_named(feed: Feed) -> Reading[list[Called] | None]:
    name = yield from feed.span(_NAME)
    if (yield from feed.skip("[CALL_ID]")):
        yield from feed.span(_NAME)
    yield from feed.skip("[ARGS]")
    yield from feed.span(SPACE)
    text = yield from take_json(feed)
    try:
        return None if not name or text is None else [Called(name, arguments_of(json_value(text), text))]
    except ValueError:
        return None


_BEFORE, _NAMED, _AFTER = NAMED
_CONTROL = ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]")

MISTRAL = CallForm(
    name="mistral",
    openings=("[TOOL_CALLS]",),
    read=_read,
    layout=Layout(head="[TOOL_CALLS][", before=_BEFORE, named=_NAMED, after=_AFTER, join=", ", tail="]"),
    control=_CONTROL,
    lesson="""You can call functions. Each of these lines describes one, with a JSON schema of its parameters:
{tools}
To call functions, answer in exactly this way, with their names and arguments:
{calls}
If none of them helps, answer in plain text.""",
)

MISTRAL_ARGS = evolve(MISTRAL, name="mistral-args", layout=Layout(before="[TOOL_CALLS]", named="[ARGS]", after=""))
