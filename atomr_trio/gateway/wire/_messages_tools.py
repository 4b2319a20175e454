"""The fields of ``/v1/messages`` that speak of tools, in the words that chat has for them."""

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from atomr_trio.core import BadRequest, ToolOffer

from ._tool_fields import Choice, FunctionFields, FunctionName, FunctionRef, NamedChoice, OfferedFunction, tool_offer

__all__ = ["ToolChoice", "ToolIn", "messages_offer"]


class ToolIn(Struct):
    """A function that the client offers. Other types than ``custom`` are the provider's own: known, and refused."""

    name: FunctionName
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoice(Struct):
    """Which of the tools may be called, or must be."""

    type: Literal["auto", "any", "tool", "none"]
    name: str = ""
    disable_parallel_tool_use: bool | None = None


def messages_offer(tools: Sequence[ToolIn], choice: ToolChoice | None) -> ToolOffer | None:
    """Return what the model may call; ``None``: nothing.

    Raises:
        BadRequest: with the offending field in ``param``.
    """
    choice = choice or ToolChoice("auto")
    offered = [_offered(tool, f"tools[{at}]") for at, tool in enumerate(tools)]
    return tool_offer(offered, _nested(choice), not choice.disable_parallel_tool_use)


def _offered(tool: ToolIn, where: str) -> OfferedFunction:
    if tool.type not in (None, "custom"):
        raise BadRequest(f"`{where}`: tools of type `{tool.type}` are not supported by this server", param=where)
    return OfferedFunction(FunctionFields(tool.name, tool.description, tool.input_schema, tool.strict))


def _nested(choice: ToolChoice) -> Choice:
    match choice.type:
        case "any":
            return "required"
        case "tool":
            return NamedChoice(FunctionRef(choice.name))
        case "auto" | "none":
            return choice.type
