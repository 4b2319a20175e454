"""The fields of ``/v1/responses`` that speak of tools: flat, where chat's are nested."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from atomr_trio.core import ToolOffer

from ._tool_fields import (
    AllowedChoice,
    AllowedTools,
    Choice,
    FunctionFields,
    FunctionName,
    FunctionRef,
    NamedChoice,
    OfferedFunction,
    tool_offer,
)

__all__ = ["FunctionTool", "ResponseChoice", "response_offer"]


class FunctionTool(Struct, tag_field="type", tag="function"):
    """A function that the client offers. Tools of other types are the provider's own."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ChosenFunction(Struct, tag_field="type", tag="function"):
    """This function has to be called."""

    name: str


class AllowedFunctions(Struct, tag_field="type", tag="allowed_tools"):
    """Only these may be called."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[ChosenFunction], Meta(min_length=1, max_length=128)]


ResponseChoice = Literal["none", "auto", "required"] | ChosenFunction | AllowedFunctions


def response_offer(
    tools: Sequence[FunctionTool], choice: ResponseChoice | None, parallel: bool | None
) -> ToolOffer | None:
    """Return what the model may call; ``None``: nothing.

    Raises:
        BadRequest: with the offending field in ``param``.
    """
    offered = [
        OfferedFunction(FunctionFields(tool.name, tool.description, tool.parameters, tool.strict)) for tool in tools
    ]
    return tool_offer(offered, _nested(choice), parallel)


def _nested(choice: ResponseChoice | None) -> Choice | None:
    match choice:
        case ChosenFunction(name):
            return NamedChoice(FunctionRef(name))
        case AllowedFunctions(mode, tools):
            return AllowedChoice(AllowedTools(mode, [NamedChoice(FunctionRef(tool.name)) for tool in tools]))
        case other:
            return other
