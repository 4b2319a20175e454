"""The objects of ``/v1/messages``. Keys that the API requires are always there, null if they have no value."""

from typing import Literal

from msgspec import Raw, Struct

from atomr_trio.core import FinishReason, TokenUsage

__all__ = [
    "MESSAGE_EVENTS",
    "BlockDelta",
    "BlockStart",
    "BlockStop",
    "ContentBlock",
    "ErrorEvent",
    "ErrorFields",
    "InputDelta",
    "MessageDelta",
    "MessageObject",
    "MessageStart",
    "MessageStop",
    "MessageUsage",
    "Ping",
    "StopDelta",
    "TextBlock",
    "TextDelta",
    "ThinkingBlock",
    "ThinkingDelta",
    "TokenCount",
    "ToolUseBlock",
    "stop_fields",
]

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]


class MessageUsage(Struct):
    """Token counts. What was found in the prefix cache is not in ``input_tokens``; nobody pays to put it there."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int = 0

    @classmethod
    def of(cls, usage: TokenUsage) -> "MessageUsage":
        """The same counts under the API's names."""
        return cls(max(0, usage.input_tokens - usage.cached_tokens), usage.output_tokens, usage.cached_tokens)


class TextBlock(Struct, tag_field="type", tag="text"):
    """A piece of the answer's content."""

    text: str
    citations: None = None


class ThinkingBlock(Struct, tag_field="type", tag="thinking"):
    """What the model thought. Nobody signs it here."""

    thinking: str
    signature: str = ""


class ToolUseBlock(Struct, tag_field="type", tag="tool_use"):
    """A call of a function that was offered. While it is streamed, its input comes as text."""

    id: str
    name: str
    input: Raw


ContentBlock = TextBlock | ThinkingBlock | ToolUseBlock


class MessageObject(Struct, tag_field="type", tag="message", kw_only=True):
    """A whole answer, or the begin of a streamed one."""

    id: str
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[ContentBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessageUsage


class MessageStart(Struct, tag_field="type", tag="message_start"):
    """The first event."""

    message: MessageObject


class Ping(Struct, tag_field="type", tag="ping"):
    """A sign of life."""


class BlockStart(Struct, tag_field="type", tag="content_block_start"):
    """A block begins, empty."""

    index: int
    content_block: ContentBlock


class TextDelta(Struct, tag_field="type", tag="text_delta"):
    """New text."""

    text: str


class ThinkingDelta(Struct, tag_field="type", tag="thinking_delta"):
    """New text of the reasoning."""

    thinking: str


class InputDelta(Struct, tag_field="type", tag="input_json_delta"):
    """More of a call's input, which is a JSON object."""

    partial_json: str


class BlockDelta(Struct, tag_field="type", tag="content_block_delta"):
    """More of the block."""

    index: int
    delta: TextDelta | ThinkingDelta | InputDelta


class BlockStop(Struct, tag_field="type", tag="content_block_stop"):
    """The block is whole."""

    index: int


class StopDelta(Struct):
    """Why the answer ended."""

    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(Struct, tag_field="type", tag="message_delta"):
    """The answer is whole; the counts are those of all of it."""

    delta: StopDelta
    usage: MessageUsage


class MessageStop(Struct, tag_field="type", tag="message_stop"):
    """The last event."""


MESSAGE_EVENTS = (MessageStart, Ping, BlockStart, BlockDelta, BlockStop, MessageDelta, MessageStop)
"""What a stream consists of, if nothing fails."""


class ErrorFields(Struct):
    """What went wrong."""

    type: str
    message: str


class ErrorEvent(Struct, tag_field="type", tag="error"):
    """A failure: the body of an error, and the last event of a stream that cannot go on."""

    error: ErrorFields
    request_id: str


class TokenCount(Struct):
    """How long a prompt is."""

    input_tokens: int


_REASONS: dict[FinishReason, StopReason] = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "tool_use",
    FinishReason.CONTENT_FILTER: "refusal",
}


def stop_fields(reason: FinishReason, stop_string: str | None) -> StopDelta:
    """Why an answer ended, and of which stop string.

    Raises:
        KeyError: for an answer that ended with ``ERROR``, which is told as an error.
    """
    if stop_string is not None:
        return StopDelta("stop_sequence", stop_string)
    return StopDelta(_REASONS[reason], None)
