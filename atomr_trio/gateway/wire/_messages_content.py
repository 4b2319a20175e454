"""The content of turns in ``/v1/messages``, and what it says."""

from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct

from atomr_trio.core import BadRequest, Message, Role, ToolCall

from ._sse import to_json
from ._tool_fields import FunctionName
from ._turns import joined

__all__ = ["Block", "TextIn", "content_turns"]


class TextIn(Struct, tag_field="type", tag="text"):
    """A piece of text. Marks for the prompt cache are ignored: it works without."""

    text: str


class ThinkingIn(Struct, tag_field="type", tag="thinking"):
    """What a model thought in an earlier turn. Its template decides what it sees of it."""

    thinking: str = ""


class RedactedThinkingIn(Struct, tag_field="type", tag="redacted_thinking"):
    """The same, unreadable: left out."""


class ImageIn(Struct, tag_field="type", tag="image"):
    """A picture: known, and refused."""


class DocumentIn(Struct, tag_field="type", tag="document"):
    """A document: known, and refused."""


class SearchResultIn(Struct, tag_field="type", tag="search_result"):
    """A source: known, and refused."""


class ToolUseIn(Struct, tag_field="type", tag="tool_use"):
    """A call of the assistant."""

    id: str
    name: FunctionName
    input: dict[str, Any]


ResultPart = TextIn | ImageIn | DocumentIn | SearchResultIn


class ToolResultIn(Struct, tag_field="type", tag="tool_result"):
    """What a call gave."""

    tool_use_id: str
    content: str | list[ResultPart] | None = None


Block = TextIn | ThinkingIn | RedactedThinkingIn | ImageIn | DocumentIn | SearchResultIn | ToolUseIn | ToolResultIn


def content_turns(role: Role, content: str | Sequence[Block], where: str) -> list[Message]:
    """Return the turn that a message is; results of tools in it are turns of their own.

    Args:
        role: whose message it is.
        content: of the message.
        where: the field that has it, for errors.

    Raises:
        BadRequest: a block is not supported, or does not belong to the role.
    """
    if isinstance(content, str):
        return [Message(role, content)]
    turns = [turn for at, block in enumerate(content) for turn in _turn(role, block, f"{where}[{at}]")]
    return list(joined(turns, ""))


def _turn(role: Role, block: Block, where: str) -> Iterator[Message]:
    match block:
        case TextIn(text):
            yield Message(role, text)
        case ThinkingIn(thinking):
            yield Message(role, "", reasoning=thinking)
        case RedactedThinkingIn():
            pass
        case ToolUseIn() if role is Role.ASSISTANT:
            yield Message(role, "", tool_calls=[ToolCall(block.id, block.name, to_json(block.input).decode())])
        case ToolResultIn() if role is Role.USER:
            yield Message(Role.TOOL, _result(block, f"{where}.content"), tool_call_id=block.tool_use_id)
        case _:
            raise _refusal(block, role, where)


def _result(block: ToolResultIn, where: str) -> str:
    if block.content is None or isinstance(block.content, str):
        return block.content or ""
    return "".join(_result_text(part, f"{where}[{at}]") for at, part in enumerate(block.content))


def _result_text(part: ResultPart, where: str) -> str:
    if isinstance(part, TextIn):
        return part.text
    raise _refusal(part, Role.TOOL, where)


def _refusal(block: Struct, role: Role, where: str) -> BadRequest:
    kind = block.__struct_config__.tag
    if isinstance(block, ToolUseIn | ToolResultIn):
        return BadRequest(f"`{where}`: content of type `{kind}` does not belong to the role `{role}`", param=where)
    return BadRequest(f"`{where}`: content of type `{kind}` is not supported by this server", param=where)
