"""Llama 3: bare JSON with ``parameters``, several separated by semicolons, or JSON after ``<|python_tag|>``."""

from atomr_trio.core import Called
from atomr_trio.text.feed import Feed, Reading

from ._form import CallForm, Offered
from ._layout import Layout
from ._objects import take_calls
from ._space import SPACE

__all__ = ["LLAMA3"]


def _read(feed: Feed, opening: str, offered: Offered) -> Reading[list[Called] | None]:
    # Code for the interpreter comes after the same tag: it is no JSON, and so it is text.
    yield from feed.span(SPACE)
    return (yield from take_calls(feed))


LLAMA3 = CallForm(
    name="llama3",
    openings=("<|python_tag|>",),
    between=";",
    bare=True,
    read=_read,
    layout=Layout(before='{"name": "', named='", "parameters": ', after="}", join="; "),
    control=("<|python_tag|>",),
    lesson="""You can call functions. Each of these lines describes one, with a JSON schema of its parameters:
{tools}
To call a function, answer with nothing but a JSON object with its name and parameters, in exactly this way:
{calls}
If none of them helps, answer in plain text.""",
    result="{content}",
)
