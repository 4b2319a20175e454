"""Gemma: JSON in a fenced block, Python in a block of ``tool_code``, or bare JSON."""

from atomr_trio.core import Called
from atomr_trio.text.feed import Feed, Reading

from ._form import CallForm, Offered
from ._layout import Layout
from ._objects import calls_in, take_calls
from ._python import python_calls
from ._space import SPACE

__all__ = ["GEMMA"]

_FENCE = "```"
_CODE = ("```tool_code", "```tool_call")


def _read(feed: Feed, opening: str, offered: Offered) -> Reading[list[Called] | None]:
    yield from feed.span(SPACE)
    if (yield from feed.peek(1)) == "{" or opening not in _CODE:
        return (yield from take_calls(feed))
    # A bracket begins a list of either.
    source = yield from _to_the_fence(feed)
    return calls_in(source) or python_calls(source, offered)


def _to_the_fence(feed: Feed) -> Reading[str]:
    parts: list[str] = []
    while True:
        text, found = feed.before((_FENCE,))
        parts.append(text)
        if found is not None or not (yield from feed.more()):
            return "".join(parts)


GEMMA = CallForm(
    name="gemma",
    openings=(*_CODE, "```json"),
    closing=_FENCE,
    bare=True,
    read=_read,
    layout=Layout(before='```json\n{"name": "', named='", "parameters": ', after="}\n```", join="\n"),
    lesson="""You can call functions. Each of these lines describes one, with a JSON schema of its parameters:
{tools}
To call functions, answer with nothing but a block for each, in exactly this way:
{calls}
If none of them helps, answer in plain text.""",
    result="```tool_output\n{content}\n```",
)
