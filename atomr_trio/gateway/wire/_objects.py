"""The objects that go back to clients. Keys that the API requires are always there, null if they have no value."""

from collections.abc import Sequence
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from atomr_trio.core import FinishReason, TokenUsage

from ._urgency import ServedTier

__all__ = [
    "CallDelta",
    "CallObject",
    "ChatAlternative",
    "ChatChoice",
    "ChatChunk",
    "ChatChunkChoice",
    "ChatCompletion",
    "ChatLogprobs",
    "ChatMessage",
    "ChatToken",
    "Delta",
    "FunctionDelta",
    "FunctionObject",
    "ModelList",
    "ModelObject",
    "PromptScore",
    "PromptToken",
    "TextChoice",
    "TextCompletion",
    "TextLogprobs",
    "Usage",
    "finish_word",
]

FinishWord = Literal["stop", "length", "tool_calls", "content_filter"]


class PromptDetails(Struct):
    """What is known about the prompt's tokens."""

    cached_tokens: int


class CompletionDetails(Struct):
    """What is known about the answer's tokens."""

    reasoning_tokens: int


class Usage(Struct):
    """Token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails

    @classmethod
    def of(cls, usage: TokenUsage) -> "Usage":
        """The same counts under the API's names."""
        return cls(
            usage.input_tokens,
            usage.output_tokens,
            usage.total_tokens,
            PromptDetails(usage.cached_tokens),
            CompletionDetails(usage.reasoning_tokens),
        )


class ChatAlternative(Struct):
    """A token that was likely. ``bytes`` is null for a control token."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChatToken(Struct):
    """A token of the answer, and what was likely in its place."""

    token: str
    logprob: float
    bytes: list[int] | None
    top_logprobs: list[ChatAlternative]


class ChatLogprobs(Struct):
    """The tokens of a chat answer, or of a piece of it."""

    content: list[ChatToken]
    refusal: None = None


class TextLogprobs(Struct):
    """The tokens of a completion, or of a piece of it. Offsets count characters from the start of the text.

    Of the first token of an echoed prompt nothing is known but that it is there.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class PromptToken(Struct):
    """A token of a prompt, or one that was likely in its place. ``rank`` is 1 for the likeliest, null if unknown."""

    logprob: float
    rank: int | None
    decoded_token: str


PromptScore = dict[str, PromptToken]
"""A place in a prompt: its token, and those that were likely there, by their ids."""


class FunctionObject(Struct):
    """A function that was called; ``arguments`` is a JSON object, as text."""

    name: str
    arguments: str


class CallObject(Struct):
    """A call of a function of the client's."""

    id: str
    function: FunctionObject
    type: str = "function"


class ChatMessage(Struct):
    """What the assistant said. ``reasoning_content`` and ``tool_calls`` are there only if there are any."""

    content: str | None
    role: str = "assistant"
    refusal: str | None = None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[CallObject] | UnsetType = UNSET


class ChatChoice(Struct):
    """One answer of several."""

    index: int
    message: ChatMessage
    finish_reason: FinishWord
    logprobs: ChatLogprobs | None = None
    token_ids: Sequence[int] | UnsetType = UNSET


class ChatCompletion(Struct, kw_only=True):
    """A whole chat answer."""

    id: str
    object: str = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str | None = None
    service_tier: ServedTier | UnsetType = UNSET
    prompt_token_ids: Sequence[int] | UnsetType | None = UNSET
    prompt_logprobs: list[PromptScore | None] | UnsetType | None = UNSET


class FunctionDelta(Struct):
    """The name of a function that is called, or a fragment of its arguments."""

    arguments: str
    name: str | UnsetType = UNSET


class CallDelta(Struct):
    """A piece of a call: the first one has all keys."""

    index: int
    function: FunctionDelta
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET


class Delta(Struct):
    """What is new since the last chunk."""

    role: str | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[CallDelta] | UnsetType = UNSET


class ChatChunkChoice(Struct):
    """The news of one answer of several."""

    index: int
    delta: Delta
    finish_reason: FinishWord | None = None
    logprobs: ChatLogprobs | None = None
    token_ids: Sequence[int] | UnsetType = UNSET


class ChatChunk(Struct, kw_only=True):
    """A piece of a streamed chat answer. ``usage`` is there only if the client asked for it."""

    id: str
    object: str = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | UnsetType | None = UNSET
    system_fingerprint: str | None = None
    service_tier: ServedTier | UnsetType = UNSET
    prompt_token_ids: Sequence[int] | UnsetType | None = UNSET


class TextChoice(Struct):
    """One completion of several, or a piece of it."""

    text: str
    index: int
    finish_reason: FinishWord | None
    logprobs: TextLogprobs | None = None
    token_ids: Sequence[int] | UnsetType = UNSET
    prompt_token_ids: Sequence[int] | UnsetType | None = UNSET
    prompt_logprobs: list[PromptScore | None] | UnsetType | None = UNSET


class TextCompletion(Struct, kw_only=True):
    """A plain completion, or a piece of it."""

    id: str
    object: str = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | UnsetType | None = UNSET
    system_fingerprint: str | None = None
    service_tier: ServedTier | UnsetType = UNSET


class ModelObject(Struct, kw_only=True):
    """A model that can be asked for."""

    id: str
    object: str = "model"
    created: int
    owned_by: str
    root: str
    parent: None = None
    max_model_len: int | None = None


class ModelList(Struct, kw_only=True):
    """All of them."""

    object: str = "list"
    data: list[ModelObject]


_FINISH_WORDS: dict[FinishReason, FinishWord] = {
    FinishReason.STOP: "stop",
    FinishReason.LENGTH: "length",
    FinishReason.TOOL_CALLS: "tool_calls",
    FinishReason.CONTENT_FILTER: "content_filter",
}


def finish_word(reason: FinishReason) -> FinishWord:
    """The API's word for it. ``ERROR`` has none: it is told as an error, never as a finish reason.

    Raises:
        KeyError: for ``ERROR``.
    """
    return _FINISH_WORDS[reason]
