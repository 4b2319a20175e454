"""The objects of ``/v1/responses``. Keys that clients read are always there, null if they have no value."""

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct, field

from atomr_trio.core import FinishReason, TokenUsage

from ._failure import Failure
from ._objects import ChatToken
from ._responses_text import FreeText, TextForm
from ._urgency import ServedTier

__all__ = [
    "FailedFields",
    "InputTokens",
    "OutputCall",
    "OutputItem",
    "OutputMessage",
    "OutputReasoning",
    "OutputText",
    "ReasoningText",
    "ResponseObject",
    "ResponseUsage",
    "Status",
    "TextFields",
    "end_status",
    "failed_fields",
]

Status = Literal["in_progress", "completed", "incomplete", "failed"]


class InputDetails(Struct):
    """What is known about the prompt's tokens. Nothing is paid for what is put into the prefix cache."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(Struct):
    """What is known about the answer's tokens."""

    reasoning_tokens: int


class ResponseUsage(Struct):
    """Token counts."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int

    @classmethod
    def of(cls, usage: TokenUsage) -> "ResponseUsage":
        """The same counts under the API's names."""
        return cls(
            usage.input_tokens,
            InputDetails(usage.cached_tokens),
            usage.output_tokens,
            OutputDetails(usage.reasoning_tokens),
            usage.total_tokens,
        )


class OutputText(Struct, tag_field="type", tag="output_text"):
    """The text of a message."""

    text: str
    annotations: list[Any] = field(default_factory=list[Any])
    logprobs: Sequence[ChatToken] = ()


class OutputMessage(Struct, tag_field="type", tag="message"):
    """What the assistant said."""

    id: str
    status: Status
    content: list[OutputText]
    role: Literal["assistant"] = "assistant"


class ReasoningText(Struct, tag_field="type", tag="reasoning_text"):
    """What the model thought."""

    text: str


class OutputReasoning(Struct, tag_field="type", tag="reasoning"):
    """The thoughts before what is said."""

    id: str
    status: Status
    content: list[ReasoningText]
    summary: list[Any] = field(default_factory=list[Any])


class OutputCall(Struct, tag_field="type", tag="function_call"):
    """A call of a function that was offered; ``arguments`` is a JSON object, as text."""

    id: str
    status: Status
    call_id: str
    name: str
    arguments: str


OutputItem = OutputMessage | OutputReasoning | OutputCall


class FailedFields(Struct):
    """Why there is no whole answer."""

    code: str
    message: str


class IncompleteDetails(Struct):
    """Why the answer is not as long as it would have been."""

    reason: Literal["max_output_tokens", "content_filter"]


class TextFields(Struct):
    """How the text looks."""

    format: TextForm = field(default_factory=FreeText)


class ReasoningFields(Struct):
    """How much the model thinks."""

    effort: None = None
    summary: None = None


class ResponseObject(Struct, kw_only=True):
    """An answer, whole or on its way, with what was asked for. Nothing of it is stored."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: Status = "in_progress"
    background: bool = False
    error: FailedFields | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: None = None
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    model: str
    output: Sequence[OutputItem] = ()
    parallel_tool_calls: bool = True
    previous_response_id: None = None
    reasoning: ReasoningFields = field(default_factory=ReasoningFields)
    service_tier: ServedTier = "default"
    store: bool = False
    temperature: float = 1.0
    text: TextFields = field(default_factory=TextFields)
    tool_choice: Any = "auto"
    tools: list[Any] = field(default_factory=list[Any])
    top_logprobs: int = 0
    top_p: float = 1.0
    truncation: str = "disabled"
    usage: ResponseUsage | None = None
    user: str | None = None


class InputTokens(Struct):
    """How long a prompt is."""

    input_tokens: int
    object: Literal["response.input_tokens"] = "response.input_tokens"


def end_status(reason: FinishReason | None) -> tuple[Status, IncompleteDetails | None]:
    """What a finish reason says of the answer."""
    if reason is FinishReason.LENGTH:
        return "incomplete", IncompleteDetails("max_output_tokens")
    if reason is FinishReason.CONTENT_FILTER:
        return "incomplete", IncompleteDetails("content_filter")
    return "completed", None


def failed_fields(failure: Failure) -> FailedFields:
    """The failure in the few words that this API has for it."""
    if failure.status == 429:
        return FailedFields("rate_limit_exceeded", failure.message)
    return FailedFields("invalid_prompt" if failure.status < 500 else "server_error", failure.message)
