"""What chat and plain completions have in common, streamed or whole. Pure: no clock, no I/O."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

from attrs import define, field
from msgspec import UNSET, UnsetType

from atomr_trio.core import ExecuteBatch, Tokens, TokenUsage

from ._failure import Failure
from ._generation import Generation
from ._logprobs import prompt_scores
from ._objects import PromptScore
from ._sse import DONE, PING, event
from ._urgency import ServedTier

__all__ = ["DataStream"]


@define
class DataStream(ABC):
    """What the streams have in common whose events have no names, and that end with ``[DONE]``.

    Args:
        id: the same in all chunks.
        created: Unix seconds.
        model: as the client said it.
        include_usage: the stream ends with a usage chunk, and all others say ``usage: null``.
        logprobs: tell the log probabilities of the tokens.
        service_tier: the class that the request got; ``None``: it did not ask for one.
        token_ids: tell the ids of all tokens.
        prompt_logprobs: tell the log probabilities of the prompt's tokens, with so many others; ``None``: do not.
    """

    id: str
    created: int
    model: str
    include_usage: bool = False
    logprobs: bool = False
    service_tier: ServedTier | None = field(default=None, kw_only=True)
    token_ids: bool = field(default=False, kw_only=True)
    prompt_logprobs: int | None = field(default=None, kw_only=True)
    _submitted: Sequence[ExecuteBatch] = field(default=(), init=False)
    # The choices of which something was told.
    _begun: set[int] = field(factory=set[int], init=False)

    @classmethod
    def of(cls, generation: Generation, created: int) -> Self:
        """The shape that a request asks for."""
        return cls(
            generation.id,
            created,
            generation.model,
            generation.include_usage,
            generation.logprobs,
            service_tier=generation.service_tier,
            token_ids=generation.token_ids,
            prompt_logprobs=generation.prompt_logprobs,
        )

    @property
    def ping(self) -> bytes:
        """A comment."""
        return PING

    @abstractmethod
    def usage(self, usage: TokenUsage, /) -> bytes:
        """The usage event before the end of a stream; empty if it was not asked for."""

    def submitted(self, choices: Sequence[ExecuteBatch]) -> None:
        """Keep what is asked for, choice by choice: some of it is told."""
        self._submitted = choices

    def begins(self, index: int) -> bool:
        """Say whether nothing was told of a choice before, and note that now there is."""
        new = index not in self._begun
        self._begun.add(index)
        return new

    def prompt_ids(self, index: int) -> Sequence[int] | UnsetType | None:
        """The ids of the prompt of a choice; unset, if nobody wants to know."""
        return self._submitted[index].prompt_ids if self.token_ids and self._submitted else UNSET

    def answer_ids(self, ids: Sequence[int]) -> Sequence[int] | UnsetType:
        """The ids of tokens of an answer; unset, if nobody wants to know."""
        return ids if self.token_ids else UNSET

    def top_logprobs(self, index: int) -> int:
        """How many others are told beside a token."""
        return self._submitted[index].sampling.top_logprobs if self._submitted else 0

    def prompt_scores(self, tokens: Tokens) -> list[PromptScore | None] | UnsetType | None:
        """The log probabilities of a prompt's tokens; unset, if nobody wants to know."""
        if self.prompt_logprobs is None:
            return UNSET
        return prompt_scores(tokens.prompt_details, self.prompt_logprobs) if tokens.prompt_details else None

    def begin(self, prompt: TokenUsage) -> bytes:
        """Nothing: the first piece begins its choice."""
        return b""

    def end(self, usage: TokenUsage) -> bytes:
        """The usage, if it was asked for."""
        return self.usage(usage) + DONE

    def failure(self, failure: Failure) -> bytes:
        """The same object that an error before the first token has."""
        return event({"error": failure.error}) + DONE
