"""The fields of a chat request that speak of tools, and what they mean."""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import msgspec
from attrs import evolve
from msgspec import Meta, Struct

from atomr_trio.core import BadRequest, Message, Role, Tool, ToolCall, ToolOffer

__all__ = ["Choice", "OfferedTool", "WireCall", "message_calls", "result_names", "tool_offer"]

# Wider than OpenAI's own rule, which has no dots: other clients send them.
FunctionName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.\-]{1,128}(?![\s\S])")]


class FunctionFields(Struct):
    """A function that the client offers."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class OfferedFunction(Struct, tag_field="type", tag="function"):
    """A tool: a function."""

    function: FunctionFields


class OfferedCustom(Struct, tag_field="type", tag="custom"):
    """A tool that takes any text: known, and refused."""


OfferedTool = OfferedFunction | OfferedCustom


class FunctionRef(Struct):
    """The name of a function that was offered."""

    name: str


class NamedChoice(Struct, tag_field="type", tag="function"):
    """This function has to be called."""

    function: FunctionRef


class CustomChoice(Struct, tag_field="type", tag="custom"):
    """A tool that takes any text has to be called: known, and refused."""


class AllowedTools(Struct):
    """A part of the tools that were offered."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedChoice | CustomChoice], Meta(min_length=1, max_length=128)]


class AllowedChoice(Struct, tag_field="type", tag="allowed_tools"):
    """Only these may be called."""

    allowed_tools: AllowedTools


Choice = Literal["none", "auto", "required"] | NamedChoice | CustomChoice | AllowedChoice


class CalledFunction(Struct):
    """What an assistant called; ``arguments`` is a JSON object, as text."""

    name: FunctionName
    arguments: str = ""


class WireFunctionCall(Struct, tag_field="type", tag="function"):
    """A call that an assistant made."""

    id: str
    function: CalledFunction


class WireCustomCall(Struct, tag_field="type", tag="custom"):
    """A call with any text: known, and refused."""


WireCall = WireFunctionCall | WireCustomCall


def tool_offer(tools: Sequence[OfferedTool], choice: Choice | None, parallel: bool | None) -> ToolOffer | None:
    """Return what the model may call; ``None``: nothing.

    Raises:
        BadRequest: with the offending field in ``param``.
    """
    offered = [_tool(tool, f"tools[{at}]") for at, tool in enumerate(tools)]
    _check_names(offered)
    required, only = _chosen(choice, {tool.name for tool in offered})
    # The model is not told of tools that it must not call: it would call them.
    if not offered or choice == "none":
        return None
    return ToolOffer(tools=tuple(offered), required=required, only=only, parallel=parallel is not False)


def _tool(tool: OfferedTool, where: str) -> Tool:
    if isinstance(tool, OfferedCustom):
        raise _no_custom(where)
    function = tool.function
    return Tool(function.name, function.description or "", function.parameters or {}, bool(function.strict))


def _check_names(tools: Sequence[Tool]) -> None:
    seen: set[str] = set()
    for at, tool in enumerate(tools):
        if tool.name in seen:
            param = f"tools[{at}].function.name"
            raise BadRequest(f"`{param}`: there are two tools of the name `{tool.name}`", param=param)
        seen.add(tool.name)


def _chosen(choice: Choice | None, offered: set[str]) -> tuple[bool, frozenset[str]]:
    """Return whether a call must be made, and the names of what may be called; none: all."""
    match choice:
        case NamedChoice():
            return True, _names([choice], offered, "tool_choice")
        case AllowedChoice(allowed_tools=allowed):
            names = _names(allowed.tools, offered, "tool_choice.allowed_tools.tools")
            return allowed.mode == "required", names
        case CustomChoice():
            raise _no_custom("tool_choice")
        case "required" if not offered:
            raise BadRequest("`tool_choice` is `required`, but there are no `tools`", param="tool_choice")
        case _:
            return choice == "required", frozenset()


def _names(choices: Iterable[NamedChoice | CustomChoice], offered: set[str], where: str) -> frozenset[str]:
    names: set[str] = set()
    for choice in choices:
        if isinstance(choice, CustomChoice):
            raise _no_custom(where)
        if choice.function.name not in offered:
            raise BadRequest(f"`{where}`: there is no tool of the name `{choice.function.name[:128]}`", param=where)
        names.add(choice.function.name)
    return frozenset(names)


def _no_custom(where: str) -> BadRequest:
    return BadRequest(f"`{where}`: only tools of the type `function` are supported by this server", param=where)


def message_calls(calls: Sequence[WireCall], role: Role, where: str) -> tuple[ToolCall, ...]:
    """Return the calls of a message.

    Raises:
        BadRequest: the message is not an assistant's, or a call is not one of a function with an object of arguments.
    """
    if calls and role is not Role.ASSISTANT:
        raise BadRequest(f"`{where}`: only messages of the role `assistant` have calls", param=where)
    return tuple([_call(call, f"{where}[{at}]") for at, call in enumerate(calls)])


def _call(call: WireCall, where: str) -> ToolCall:
    if isinstance(call, WireCustomCall):
        raise _no_custom(where)
    return ToolCall(call.id, call.function.name, _object_text(call.function.arguments, f"{where}.function.arguments"))


def _object_text(text: str, where: str) -> str:
    if not text.strip():
        return "{}"
    try:
        value: Any = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadRequest(f"`{where}` must be a JSON object, as text", param=where)
    return text


def result_names(messages: Iterable[Message]) -> list[Message]:
    """Give each result of a tool the name of the function, which clients leave out and some templates want."""
    names: dict[str, str] = {}
    named: list[Message] = []
    for message in messages:
        names |= {call.id: call.name for call in message.tool_calls}
        known = names.get(message.tool_call_id, "") if message.role is Role.TOOL else ""
        named.append(evolve(message, name=message.name or known) if known else message)
    return named
