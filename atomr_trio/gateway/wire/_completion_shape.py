"""How a plain completion looks on the wire, streamed or whole. Pure: no clock, no I/O."""

from collections.abc import Sequence

from attrs import define, evolve, field
from msgspec import UNSET, UnsetType

from atomr_trio.core import AnswerForm, FinishReason, TokenChunk, Tokens, TokenUsage

from ._data_stream import DataStream
from ._echo import Echo
from ._logprobs import TextPlaces, joined_logprobs
from ._objects import TextChoice, TextCompletion, TextLogprobs, Usage, finish_word
from ._sse import event, to_json

__all__ = ["CompletionShape"]


@define
class CompletionShape(DataStream):
    """``text_completion``, streamed or not.

    Args:
        echo: the prompts, if each answer begins with its own.
    """

    echo: Echo | None = field(default=None, kw_only=True)
    _places: dict[int, TextPlaces] = field(factory=dict[int, TextPlaces], init=False)

    def read_as(self, form: AnswerForm | None) -> None:
        """Do nothing: what continues a text is text."""

    def chunk(self, index: int, chunk: TokenChunk) -> bytes:
        """Text and finish reason share a chunk: clients count at most ``max_tokens`` chunks per choice."""
        choice = self._choice(index, chunk)
        if not (choice.text or choice.finish_reason or choice.logprobs or choice.token_ids or choice.prompt_token_ids):
            return b""
        return event(self._object([choice], None if self.include_usage else UNSET))

    def usage(self, usage: TokenUsage) -> bytes:
        """A chunk without choices."""
        return event(self._object([], self._counted(usage))) if self.include_usage else b""

    def whole(self, choices: Sequence[Tokens], usage: TokenUsage) -> bytes:
        """A ``text_completion`` object."""
        texts = [self._whole(index, tokens) for index, tokens in enumerate(choices)]
        return to_json(self._object(texts, self._counted(usage)))

    def _whole(self, index: int, tokens: Tokens) -> TextChoice:
        choice = self._choice(index, _all_of(tokens))
        choice.prompt_logprobs = self.prompt_scores(tokens)
        # All that there is may be nothing, which is told too.
        choice.token_ids = choice.token_ids or self.answer_ids(())
        if self.logprobs and choice.logprobs is None:
            choice.logprobs = TextLogprobs([], [], [], [])
        return choice

    def _choice(self, index: int, chunk: TokenChunk) -> TextChoice:
        """Return what a chunk adds to a choice; the first one adds the prompt, if it is told."""
        first = self.begins(index)
        said = self.echo.cut(chunk) if self.echo is not None else chunk
        before = self.echo.text(index) if self.echo is not None and first else ""
        return TextChoice(
            before + said.text_delta,
            index,
            None if said.finish_reason is None else finish_word(said.finish_reason),
            self._logprobs(index, before, said) if self.logprobs else None,
            token_ids=self.answer_ids(said.token_ids) if said.token_ids else UNSET,
            prompt_token_ids=self.prompt_ids(index) if first else UNSET,
        )

    def _logprobs(self, index: int, before: str, said: TokenChunk) -> TextLogprobs | None:
        places = self._places.setdefault(index, TextPlaces())
        prompt = places.take_prompt(before, said.prompt_details, self.top_logprobs(index)) if before else None
        return joined_logprobs(prompt, places.take(said.details) if said.details else None)

    def _counted(self, usage: TokenUsage) -> Usage:
        nothing_new = self.echo is not None and self.echo.alone
        return Usage.of(evolve(usage, output_tokens=0) if nothing_new else usage)

    def _object(self, choices: list[TextChoice], usage: Usage | UnsetType | None) -> TextCompletion:
        return TextCompletion(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=choices,
            usage=usage,
            service_tier=self.service_tier or UNSET,
        )


def _all_of(tokens: Tokens) -> TokenChunk:
    return TokenChunk(
        text_delta=tokens.text,
        token_ids=tuple(tokens.token_ids),
        details=tuple(tokens.details),
        prompt_details=tokens.prompt_details,
        finish_reason=tokens.finish_reason or FinishReason.STOP,
    )
