"""How an answer looks on the wire: chat or plain completion, streamed or whole. Pure: no clock, no I/O."""

from collections.abc import Sequence
from typing import Protocol

from attrs import define, field
from msgspec import UNSET, UnsetType

from atomr_trio.core import FinishReason, TokenChunk, TokenLogprob, Tokens, TokenUsage

from ._logprobs import TextPlaces, chat_logprobs
from ._objects import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatLogprobs,
    ChatMessage,
    Delta,
    TextChoice,
    TextCompletion,
    TextLogprobs,
    Usage,
    finish_word,
)
from ._sse import event, to_json

__all__ = ["ChatShape", "CompletionShape", "Shape"]


class Shape(Protocol):
    """Turns the pieces of an answer into bytes. One object serves one HTTP request."""

    def chunk(self, index: int, chunk: TokenChunk, /) -> bytes:
        """The events for a piece of choice ``index``; empty if there is nothing to tell yet."""
        ...

    def usage(self, usage: TokenUsage, /) -> bytes:
        """The usage event before the end of a stream; empty if it was not asked for."""
        ...

    def whole(self, choices: Sequence[Tokens], usage: TokenUsage, /) -> bytes:
        """The answer in one JSON object, not streamed."""
        ...


@define
class ChatShape:
    """``chat.completion`` and ``chat.completion.chunk``.

    Args:
        id: the same in all chunks.
        created: Unix seconds.
        model: as the client said it.
        include_usage: the stream ends with a usage chunk, and all others say ``usage: null``.
        logprobs: tell the log probabilities of the tokens.
    """

    id: str
    created: int
    model: str
    include_usage: bool = False
    logprobs: bool = False
    _greeted: set[int] = field(factory=set[int], init=False)

    def chunk(self, index: int, chunk: TokenChunk) -> bytes:
        """First the role, then text, then exactly one finish reason with an empty delta."""
        choices: list[ChatChunkChoice] = []
        if index not in self._greeted:
            self._greeted.add(index)
            choices.append(ChatChunkChoice(index, Delta(role="assistant", content=None)))
        logprobs = self._logprobs(chunk.details) if chunk.details else None
        if chunk.text_delta or logprobs is not None:
            choices.append(ChatChunkChoice(index, Delta(content=chunk.text_delta), logprobs=logprobs))
        if chunk.finish_reason is not None:
            choices.append(ChatChunkChoice(index, Delta(), finish_word(chunk.finish_reason)))
        return b"".join(event(self._chunk([choice], None)) for choice in choices)

    def usage(self, usage: TokenUsage) -> bytes:
        """A chunk without choices."""
        return event(self._chunk([], Usage.of(usage))) if self.include_usage else b""

    def _logprobs(self, details: Sequence[TokenLogprob]) -> ChatLogprobs | None:
        return chat_logprobs(details) if self.logprobs else None

    def _chunk(self, choices: list[ChatChunkChoice], usage: Usage | None) -> ChatChunk:
        shown = usage if self.include_usage else UNSET
        return ChatChunk(id=self.id, created=self.created, model=self.model, choices=choices, usage=shown)

    def whole(self, choices: Sequence[Tokens], usage: TokenUsage) -> bytes:
        """A ``chat.completion`` object."""
        answers = [
            ChatChoice(
                index,
                ChatMessage(tokens.text),
                finish_word(tokens.finish_reason or FinishReason.STOP),
                self._logprobs(tokens.details),
            )
            for index, tokens in enumerate(choices)
        ]
        return to_json(
            ChatCompletion(id=self.id, created=self.created, model=self.model, choices=answers, usage=Usage.of(usage))
        )


@define
class CompletionShape:
    """``text_completion``, streamed or not.

    Args:
        id: the same in all chunks.
        created: Unix seconds.
        model: as the client said it.
        include_usage: the stream ends with a usage chunk, and all others say ``usage: null``.
        logprobs: tell the log probabilities of the tokens.
    """

    id: str
    created: int
    model: str
    include_usage: bool = False
    logprobs: bool = False
    _places: dict[int, TextPlaces] = field(factory=dict[int, TextPlaces], init=False)

    def chunk(self, index: int, chunk: TokenChunk) -> bytes:
        """Text and finish reason share a chunk: clients count at most ``max_tokens`` chunks per choice."""
        logprobs = self._logprobs(index, chunk.details) if chunk.details else None
        if not chunk.text_delta and chunk.finish_reason is None and logprobs is None:
            return b""
        word = None if chunk.finish_reason is None else finish_word(chunk.finish_reason)
        choice = TextChoice(chunk.text_delta, index, word, logprobs)
        return event(self._object([choice], None if self.include_usage else UNSET))

    def usage(self, usage: TokenUsage) -> bytes:
        """A chunk without choices."""
        return event(self._object([], Usage.of(usage))) if self.include_usage else b""

    def whole(self, choices: Sequence[Tokens], usage: TokenUsage) -> bytes:
        """A ``text_completion`` object."""
        texts = [
            TextChoice(
                tokens.text,
                index,
                finish_word(tokens.finish_reason or FinishReason.STOP),
                self._logprobs(index, tokens.details),
            )
            for index, tokens in enumerate(choices)
        ]
        return to_json(self._object(texts, Usage.of(usage)))

    def _logprobs(self, index: int, details: Sequence[TokenLogprob]) -> TextLogprobs | None:
        return self._places.setdefault(index, TextPlaces()).take(details) if self.logprobs else None

    def _object(self, choices: list[TextChoice], usage: Usage | UnsetType | None) -> TextCompletion:
        return TextCompletion(id=self.id, created=self.created, model=self.model, choices=choices, usage=usage)
