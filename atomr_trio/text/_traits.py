"""What a chat template knows of tools, found out by trying it: templates say it in too many ways to be searched."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from attrs import frozen

from atomr_trio.core import BadRequest

from .template import ChatTemplate

__all__ = ["TemplateTraits", "probe"]

Turns = Sequence[Mapping[str, Any]]

_NAME, _KEY, _RESULT = "probed_function", "probed_argument", "probed_result"
_SCHEMA = {"type": "object", "properties": {_KEY: {"type": "string", "description": "x"}}, "required": [_KEY]}
_TOOL = {"type": "function", "function": {"name": _NAME, "description": "x", "parameters": _SCHEMA}}
_USER = {"role": "user", "content": "x"}


@frozen(kw_only=True)
class TemplateTraits:
    """What a template can do.

    Args:
        tools: the variable that it takes the tools from; ``None``: it knows nothing of tools.
        arguments: how it takes the arguments of calls: as an object, or as its text; ``None``: it knows no calls.
        many_calls: a turn may have several calls.
        results: it knows the role ``tool``.
        system: it knows the role ``system``.
    """

    tools: Literal["tools", "xml_tools"] | None
    arguments: Literal["object", "text"] | None
    many_calls: bool
    results: bool
    system: bool


def probe(template: ChatTemplate) -> TemplateTraits:
    """Return what the template can do."""
    taken = _arguments(template)
    return TemplateTraits(
        tools=_variable(template),
        arguments=taken,
        many_calls=taken is not None and f'"{_KEY}"' in _calls(template, taken, 2),
        results=_RESULT in (_calls(template, taken, 1) if taken else _spoken_result(template)),
        system="probed" in _render(template, [{"role": "system", "content": "probed"}, _USER]),
    )


def _variable(template: ChatTemplate) -> Literal["tools", "xml_tools"] | None:
    if _NAME in _render(template, [_USER], tools=[_TOOL]):
        return "tools"
    return "xml_tools" if _NAME in _render(template, [_USER], xml_tools=[_TOOL]) else None


def _arguments(template: ChatTemplate) -> Literal["object", "text"] | None:
    if f'"{_KEY}"' in _calls(template, "object", 1):
        return "object"
    return "text" if f'"{_KEY}"' in _calls(template, "text", 1) else None


def _render(template: ChatTemplate, turns: Turns, **variables: Any) -> str:
    try:
        return template.render(turns, **variables)
    except BadRequest:
        return ""


def _calls(template: ChatTemplate, how: str, count: int) -> str:
    arguments: Any = {_KEY: "x"} if how == "object" else json.dumps({_KEY: "x"})
    # Ids as short as these are what the strictest templates insist on.
    ids = [f"probed{number:03}" for number in range(count)]
    calls = [{"id": id, "type": "function", "function": {"name": _NAME, "arguments": arguments}} for id in ids]
    results = [{"role": "tool", "content": _RESULT, "name": _NAME, "tool_call_id": id} for id in ids]
    spoken = {"role": "assistant", "content": "", "tool_calls": calls}
    return _render(template, [_USER, spoken, *results], tools=[_TOOL])


def _spoken_result(template: ChatTemplate) -> str:
    said = {"role": "assistant", "content": "x"}
    return _render(template, [_USER, said, {"role": "tool", "content": _RESULT, "name": _NAME}])
