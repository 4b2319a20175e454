"""How an answer looks on the wire, and how that of a chat does, streamed or whole. Pure: no clock, no I/O."""

from collections.abc import Sequence
from typing import Protocol

from attrs import define, field
from msgspec import UNSET

from atomr_trio.core import AnswerForm, ExecuteBatch, Piece, Said, TokenChunk, TokenLogprob, Tokens, TokenUsage

from ._choices import ChatChoices
from ._data_stream import DataStream
from ._failure import Failure
from ._logprobs import chat_logprobs
from ._objects import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatLogprobs,
    Delta,
    Usage,
    finish_word,
)
from ._sse import MARK, TextFrame, event, to_json

__all__ = ["ChatShape", "Shape"]


class Shape(Protocol):
    """Turns the pieces of an answer into bytes. One object serves one HTTP request.

    A stream is ``begin``, pieces, then ``end`` or ``failure``, each of the two once at most.
    """

    @property
    def ping(self) -> bytes:
        """What is sent in silence; between any two events."""
        ...

    def begin(self, prompt: TokenUsage, /) -> bytes:
        """The events before the first piece; ``prompt`` is the usage so far."""
        ...

    def read_as(self, form: AnswerForm | None, /) -> None:
        """Say how the text is to be read, before there is any."""
        ...

    def submitted(self, choices: Sequence[ExecuteBatch], /) -> None:
        """Say what is asked for, choice by choice, before there is any answer."""
        ...

    def chunk(self, index: int, chunk: TokenChunk, /) -> bytes:
        """The events for a piece of choice ``index``; empty if there is nothing to tell yet."""
        ...

    def end(self, usage: TokenUsage, /) -> bytes:
        """The events after the last piece of the last choice."""
        ...

    def failure(self, failure: Failure, /) -> bytes:
        """The events that end a stream which cannot go on, wherever it is."""
        ...

    def whole(self, choices: Sequence[Tokens], usage: TokenUsage, /) -> bytes:
        """The answer in one JSON object, not streamed."""
        ...


@define
class ChatShape(DataStream):
    """``chat.completion`` and ``chat.completion.chunk``."""

    # Of the choices that have begun.
    _frames: dict[int, TextFrame] = field(factory=dict[int, TextFrame], init=False)
    _choices: ChatChoices = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._choices = ChatChoices(self.id)

    def read_as(self, form: AnswerForm | None) -> None:
        """Tell reasoning and calls apart from the text."""
        self._choices.form = form

    def chunk(self, index: int, chunk: TokenChunk) -> bytes:
        """First the role, then text, reasoning and calls, then exactly one finish reason with an empty delta."""
        pieces = self._choices.read(index, chunk)
        if index in self._frames and (text := self._only_text(chunk, pieces)):
            return self._frames[index].fill(text)
        greeting = [] if index in self._frames else [self._greeting(index)]
        choices = self._told(index, chunk, pieces)
        if chunk.finish_reason is not None:
            reason = self._choices.reason(index, chunk.finish_reason)
            choices.append(ChatChunkChoice(index, Delta(), finish_word(reason)))
        return b"".join([*greeting, *map(self._event, choices)])

    def usage(self, usage: TokenUsage) -> bytes:
        """A chunk without choices."""
        return event(self._chunk([], Usage.of(usage))) if self.include_usage else b""

    def _greeting(self, index: int) -> bytes:
        self._frames[index] = TextFrame.around(self._event(ChatChunkChoice(index, Delta(content=MARK))))
        greeting = self._chunk([ChatChunkChoice(index, Delta(role="assistant", content=None))], None)
        greeting.prompt_token_ids = self.prompt_ids(index)
        return event(greeting)

    def _only_text(self, chunk: TokenChunk, pieces: Sequence[Piece]) -> str:
        """The text, if there is nothing else to tell, as of nearly every chunk."""
        if chunk.finish_reason is not None or chunk.details or chunk.tool_call_delta is not None or len(pieces) != 1:
            return ""
        if self.token_ids and chunk.token_ids:
            return ""
        return pieces[0].text if isinstance(pieces[0], Said) else ""

    def _told(self, index: int, chunk: TokenChunk, pieces: Sequence[Piece]) -> list[ChatChunkChoice]:
        deltas = self._choices.deltas(index, chunk, pieces)
        logprobs = self._logprobs(chunk.details) if chunk.details else None
        token_ids = self.answer_ids(chunk.token_ids) if chunk.token_ids else UNSET
        # What is known of tokens does not wait for their text.
        if not deltas and (logprobs is not None or token_ids):
            deltas = [Delta(content="")]
        choices = [ChatChunkChoice(index, delta) for delta in deltas]
        if choices:
            choices[0].logprobs, choices[0].token_ids = logprobs, token_ids
        return choices

    def _logprobs(self, details: Sequence[TokenLogprob]) -> ChatLogprobs | None:
        return chat_logprobs(details) if self.logprobs else None

    def _event(self, choice: ChatChunkChoice) -> bytes:
        return event(self._chunk([choice], None))

    def _chunk(self, choices: list[ChatChunkChoice], usage: Usage | None) -> ChatChunk:
        shown = usage if self.include_usage else UNSET
        return ChatChunk(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=choices,
            usage=shown,
            service_tier=self.service_tier or UNSET,
        )

    def whole(self, choices: Sequence[Tokens], usage: TokenUsage) -> bytes:
        """A ``chat.completion`` object."""
        answers = [self._whole(index, tokens) for index, tokens in enumerate(choices)]
        return to_json(
            ChatCompletion(
                id=self.id,
                created=self.created,
                model=self.model,
                choices=answers,
                usage=Usage.of(usage),
                service_tier=self.service_tier or UNSET,
                prompt_token_ids=self.prompt_ids(0),
                prompt_logprobs=self.prompt_scores(choices[0]) if choices else UNSET,
            )
        )

    def _whole(self, index: int, tokens: Tokens) -> ChatChoice:
        message, reason = self._choices.message(index, tokens)
        logprobs, token_ids = self._logprobs(tokens.details), self.answer_ids(tokens.token_ids)
        return ChatChoice(index, message, finish_word(reason), logprobs, token_ids)
