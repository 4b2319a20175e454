"""The items of an input of ``/v1/responses``, and what they say."""

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from atomr_trio.core import BadRequest, Message, Role, ToolCall

from ._tool_fields import CalledFunction, WireFunctionCall, message_calls

__all__ = ["ItemIn", "item_turn"]

_ROLES = {"developer": Role.SYSTEM}


class InputText(Struct, tag_field="type", tag="input_text"):
    """A piece of what a user said."""

    text: str


class OutputTextIn(Struct, tag_field="type", tag="output_text"):
    """A piece of what the assistant said."""

    text: str


class RefusalIn(Struct, tag_field="type", tag="refusal"):
    """What the assistant said when it refused."""

    refusal: str


class ReasoningTextIn(Struct, tag_field="type", tag="reasoning_text"):
    """What a model thought in an earlier turn. Its template decides what it sees of it."""

    text: str


class InputImage(Struct, tag_field="type", tag="input_image"):
    """A picture: known, and refused."""


class InputFile(Struct, tag_field="type", tag="input_file"):
    """A file: known, and refused."""


class InputAudio(Struct, tag_field="type", tag="input_audio"):
    """Sound: known, and refused."""


PartIn = InputText | OutputTextIn | RefusalIn | ReasoningTextIn | InputImage | InputFile | InputAudio


class ItemIn(Struct):
    """One item of the input; without a type it is a message."""

    type: str = "message"
    # Of messages and reasoning.
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[PartIn] | None = None
    # Of calls and their results.
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str | list[PartIn] | None = None


def item_turn(item: ItemIn, where: str) -> Message:
    """Return the turn that an item is.

    Args:
        item: of the input.
        where: the field that has it, for errors.

    Raises:
        BadRequest: it is of a type that is not supported, or lacks what its type needs.
    """
    match item.type:
        case "message":
            role, content = _given(item, "role", where), _given(item, "content", where)
            return Message(_ROLES.get(role) or Role(role), _text(content, f"{where}.content"))
        case "reasoning":
            return Message(Role.ASSISTANT, "", reasoning=_text(item.content or "", f"{where}.content"))
        case "function_call":
            return Message(Role.ASSISTANT, "", tool_calls=_calls(item, where))
        case "function_call_output":
            output = _text(_given(item, "output", where), f"{where}.output")
            return Message(Role.TOOL, output, tool_call_id=_given(item, "call_id", where))
        case "item_reference":
            raise BadRequest(f"`{where}` needs stored responses, and this server stores none", param=where)
        case other:
            raise BadRequest(f"`{where}`: items of type `{other}` are not supported by this server", param=where)


def _calls(item: ItemIn, where: str) -> Sequence[ToolCall]:
    called = CalledFunction(_given(item, "name", where), item.arguments)
    calls = [WireFunctionCall(_given(item, "call_id", where), called)]
    try:
        return message_calls(calls, Role.ASSISTANT, where)
    except BadRequest:
        # It speaks of the fields that a call has in the older dialect.
        param = f"{where}.arguments"
        raise BadRequest(f"`{param}` must be a JSON object, as text", param=param) from None


def _given(item: ItemIn, name: str, where: str) -> Any:
    value = getattr(item, name)
    if value is None or (value == "" and name in ("name", "call_id")):
        raise BadRequest(f"`{where}.{name}` is required", param=f"{where}.{name}")
    return value


def _text(content: str | list[PartIn], where: str) -> str:
    if isinstance(content, str):
        return content
    return "".join(_part(part, f"{where}[{at}]") for at, part in enumerate(content))


def _part(part: PartIn, where: str) -> str:
    match part:
        case InputText() | OutputTextIn() | ReasoningTextIn():
            return part.text
        case RefusalIn():
            return part.refusal
        case _:
            kind = part.__struct_config__.tag
            raise BadRequest(f"`{where}`: content of type `{kind}` is not supported by this server", param=where)
