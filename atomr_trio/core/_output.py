"""What a runner says back: chunks, usage, finish reasons, and their accumulation."""

import enum
from typing import Any

from attrs import define, field, frozen

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
    """

    name: str
    text: bytes | None
    logprob: float
    top: "tuple[TokenLogprob, ...]" = ()


@frozen(kw_only=True)
class TokenChunk:
    """A piece of an answer.

    Args:
        request_id: filled in by the sink when a runner leaves it empty.
        text_delta: new text. Never half of a UTF-8 character, never the begin of a stop string.
        token_ids: the tokens that this chunk accounts for; may be empty for runners that know only text.
        logprobs: log probability of each of ``token_ids``, when asked for.
        details: the same with spellings and alternatives, when asked for and where the runner knows them.
        tool_call_delta: a fragment of a tool call, in the API's own shape.
        usage: what this chunk adds to the token counts; most runners put it whole on the last chunk.
        finish_reason: set on the last chunk and only there.
    """

    request_id: str = ""
    text_delta: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    details: tuple[TokenLogprob, ...] = ()
    tool_call_delta: dict[str, Any] | None = None
    usage: TokenUsage | None = None
    finish_reason: FinishReason | None = None


@define
class Tokens:
    """A whole answer, accumulated from its chunks."""

    request_id: str = ""
    token_ids: list[int] = field(factory=list[int])
    logprobs: list[float] = field(factory=list[float])
    details: list[TokenLogprob] = field(factory=list[TokenLogprob])
    tool_calls: list[dict[str, Any]] = field(factory=list[dict[str, Any]])
    usage: TokenUsage = field(factory=TokenUsage)
    finish_reason: FinishReason | None = None
    # Joined on demand: appending to a string would make a long answer quadratic.
    _parts: list[str] = field(factory=list[str], repr=False)

    @property
    def text(self) -> str:
        """The text so far."""
        if len(self._parts) > 1:
            self._parts[:] = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""

    def append(self, chunk: TokenChunk) -> None:
        """Add a chunk: text and usage add up, the last finish reason wins."""
        if chunk.text_delta:
            self._parts.append(chunk.text_delta)
        self.token_ids.extend(chunk.token_ids)
        self.logprobs.extend(chunk.logprobs)
        self.details.extend(chunk.details)
        if chunk.tool_call_delta is not None:
            self.tool_calls.append(chunk.tool_call_delta)
        if chunk.usage is not None:
            self.usage = self.usage + chunk.usage
        if chunk.finish_reason is not None:
            self.finish_reason = chunk.finish_reason
