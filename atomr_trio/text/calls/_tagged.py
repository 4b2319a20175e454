"""``<tool_call>{…}</tool_call>``: Hermes, Qwen 2.5 and 3, SmolLM3; and SmolLM2's one array in the same tags."""

from atomr_trio.core import Called
from atomr_trio.text.feed import Feed, Reading

from ._form import CallForm, Offered
from ._layout import NAMED, Layout
from ._objects import take_calls
from ._space import SPACE

__all__ = ["HERMES", "SMOLLM"]


def _read(feed: Feed, opening: str, offered: Offered) -> Reading[list[Called] | None]:
    yield from feed.span(SPACE)
    return (yield from take_calls(feed))


_BEFORE, _NAMED, _AFTER = NAMED
_LESSON = """You can call functions. Each of these lines describes one, with a JSON schema of its parameters:
<tools>
{tools}
</tools>
To call functions, answer in exactly this way, with their names and arguments:
{calls}
If none of them helps, answer in plain text."""

HERMES = CallForm(
    name="hermes",
    openings=("<tool_call>",),
    closing="</tool_call>",
    read=_read,
    layout=Layout(before="<tool_call>\n" + _BEFORE, named=_NAMED, after=_AFTER + "\n</tool_call>", join="\n"),
    control=("<tool_call>", "</tool_call>"),
    lesson=_LESSON,
)

SMOLLM = CallForm(
    name="smollm",
    openings=("<tool_call>",),
    closing="</tool_call>",
    bare=True,
    read=_read,
    layout=Layout(head="<tool_call>[", before=_BEFORE, named=_NAMED, after=_AFTER, join=", ", tail="]</tool_call>"),
    control=("<tool_call>", "</tool_call>"),
    lesson=_LESSON,
)
