"""What a runner says back: chunks, usage, finish reasons, and their accumulation."""

import enum
from collections.abc import Collection
from typing import Any

from attrs import define, field, frozen

from ._embedding import Embedding

__all__ = ["FinishReason", "TokenChunk", "TokenLogprob", "TokenUsage", "Tokens"]


class FinishReason(enum.StrEnum):
    """Why an answer ended."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    ERROR = "error"


@frozen
class TokenUsage:
    """Token counts of one request."""

    input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0

    def __add__(self, other: "TokenUsage") -> "TokenUsage":
        """Field-wise sum."""
        return TokenUsage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.cached_tokens + other.cached_tokens,
        )

    @property
    def total_tokens(self) -> int:
        """Input plus output."""
        return self.input_tokens + self.output_tokens


@frozen
class TokenLogprob:
    """A token in its place: how likely it was, and what else was.

    Args:
        name: its spelling; half of a character is U+FFFD.
        text: what it adds to the text, in UTF-8 once the tokens are put together; ``None`` for a control token.
        logprob: natural logarithm of its probability under the model's own distribution.
        top: the most likely tokens in this place, best first, as many as were asked for.
        id: the token's number, where the runner knows it.
    """

    name: str
    text: bytes | None
    logprob: float
    top: "tuple[TokenLogprob, ...]" = ()
    id: int | None = None


@frozen(kw_only=True)
class TokenChunk:
    """A piece of an answer.

    Args:
        request_id: filled in by the sink when a runner leaves it empty.
        text_delta: new text. Never half of a UTF-8 character, never the begin of a stop string.
        token_ids: the tokens that this chunk accounts for; may be empty for runners that know only text.
        logprobs: log probability of each of ``token_ids``, when asked for.
        details: the same with spellings and alternatives, when asked for and where the runner knows them.
        prompt_details: the same for all tokens of the prompt, on one chunk, when asked for and where the runner knows
            them. Of the first token nothing is said, and its log probability is 0: nothing comes before it.
        tool_call_delta: a fragment of a tool call, in the API's own shape.
        embedding: the answer, when an embedding is asked for.
        usage: what this chunk adds to the token counts; most runners put it whole on the last chunk.
        finish_reason: set on the last chunk and only there.
        stop_string: on the last chunk, the stop string that ended the answer, if one did and the runner knows which.
    """

    request_id: str = ""
    text_delta: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    details: tuple[TokenLogprob, ...] = ()
    prompt_details: Collection[TokenLogprob] = ()
    tool_call_delta: dict[str, Any] | None = None
    embedding: Embedding | None = None
    usage: TokenUsage | None = None
    finish_reason: FinishReason | None = None
    stop_string: str | None = None


@define
class Tokens:
    """A whole answer, accumulated from its chunks."""

    request_id: str = ""
    token_ids: list[int] = field(factory=list[int])
    logprobs: list[float] = field(factory=list[float])
    details: list[TokenLogprob] = field(factory=list[TokenLogprob])
    prompt_details: Collection[TokenLogprob] = ()
    tool_calls: list[dict[str, Any]] = field(factory=list[dict[str, Any]])
    embedding: Embedding | None = None
    usage: TokenUsage = field(factory=TokenUsage)
    finish_reason: FinishReason | None = None
    stop_string: str | None = None
    # Joined on demand: appending to a string would make a long answer quadratic.
    _parts: list[str] = field(factory=list[str], repr=False)

    @property
    def text(self) -> str:
        """The text so far."""
        if len(self._parts) > 1:
            self._parts[:] = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    def append(self, chunk: TokenChunk) -> None:
        """Add a chunk: text and usage add up, the last finish reason and embedding win."""
        if chunk.text_delta:
            self._parts.append(chunk.text_delta)
        self.token_ids.extend(chunk.token_ids)
        self.logprobs.extend(chunk.logprobs)
        self.details.extend(chunk.details)
        self.prompt_details = self.prompt_details or chunk.prompt_details
        if chunk.tool_call_delta is not None:
            self.tool_calls.append(chunk.tool_call_delta)
        if chunk.embedding is not None:
            self.embedding = chunk.embedding
        if chunk.usage is not None:
            self.usage = self.usage + chunk.usage
        if chunk.finish_reason is not None:
            self.finish_reason, self.stop_string = chunk.finish_reason, chunk.stop_string
