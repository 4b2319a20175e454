"""The text side of one model: requests into token ids, token ids into text."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import attrs
from attrs import define, field

from atomr_trio.core import (
    BadRequest,
    ContextLengthExceeded,
    ExecuteBatch,
    ModelLoadError,
    SamplingParams,
    TokenLogprob,
)
from atomr_trio.formats import GgufFile, HfFolder

from ._hf_tokenizer import token_text
from .detokenizer import Detokenizer
from .stops import StopMatcher
from .template import ChatTemplate
from .tokenizer import Tokenizer

__all__ = ["OutputDecoder", "TextCodec"]


@define(eq=False)
class OutputDecoder:
    """Makes text of one request's tokens, up to its first stop string."""

    _detokenizer: Detokenizer = field(repr=False)
    _stops: StopMatcher = field(repr=False)
    tokens: int = field(default=0, init=False)
    """How many ids were taken: after a stop, those up to the one that completed it."""

    @property
    def stopped(self) -> bool:
        """A stop string has ended the answer."""
        return self._stops.matched

    def push(self, ids: Sequence[int]) -> tuple[str, bool]:
        """Take more tokens; return the text that can be shown now, and whether the answer has ended.

        After the end, tokens are ignored.

        Raises:
            Internal: an id is outside the vocabulary.
        """
        shown: list[str] = []
        for id in ids:
            if self.stopped:
                break
            self.tokens += 1
            shown.append(self._stops.push(self._detokenizer.push((id,)))[0])
        return "".join(shown), self.stopped

    def finish(self) -> str:
        """Return what was held back: no more tokens come. Empty after a stop string."""
        return self._stops.push(self._detokenizer.flush())[0] + self._stops.flush()


def _template(fields: Mapping[str, Any], tokenizer: Tokenizer) -> ChatTemplate | None:
    source = fields.get("tokenizer.chat_template")
    if not isinstance(source, str):
        return None
    eos = fields.get("tokenizer.ggml.eos_token_id")
    return ChatTemplate(source, tokenizer.token_name(tokenizer.bos_id), tokenizer.token_name(eos))


def _length(trained: int, asked: int | None) -> int:
    length = trained if asked is None else min(trained, asked)
    if length < 2:
        raise ModelLoadError(f"a context of {length} tokens has no room for a prompt and an answer")
    return length


@define(eq=False)
class TextCodec:
    """Prepares requests for one model, and decodes its answers. Safe to use from several threads.

    Args:
        tokenizer: the model's.
        template: its chat template; ``None``: only plain completions.
        max_model_len: the context in tokens, at least 2.
    """

    tokenizer: Tokenizer
    template: ChatTemplate | None
    max_model_len: int

    @classmethod
    def from_gguf(cls, path: str | os.PathLike[str], max_model_len: int | None = None) -> Self:
        """Read tokenizer, template and context length from a model file.

        Args:
            path: the GGUF file.
            max_model_len: serve a shorter context than the model's own.

        Raises:
            ModelLoadError: the file cannot be read, or its tokenizer or template is not supported.
        """
        with GgufFile.open(path) as file:
            fields = file.fields
        tokenizer = Tokenizer.from_gguf(fields)
        architecture = fields.get("general.architecture")
        trained = fields.get(f"{architecture}.context_length")
        if not isinstance(trained, int):
            raise ModelLoadError(f"the field {architecture}.context_length is missing")
        return cls(tokenizer, _template(fields, tokenizer), _length(trained, max_model_len))

    @classmethod
    def from_folder(cls, path: str | os.PathLike[str], context_length: int, max_model_len: int | None = None) -> Self:
        """Read tokenizer and template from a Hugging Face folder.

        Args:
            path: the folder.
            context_length: what the model was made for, in tokens.
            max_model_len: serve a shorter context than that.

        Raises:
            ModelLoadError: a file cannot be read, or the tokenizer or template is not supported.
        """
        folder = HfFolder(path)
        tokenizer, about, source = Tokenizer.from_folder(folder), folder.tokenizer_config, folder.chat_template
        template = None
        if source is not None:
            template = ChatTemplate(source, token_text(about, "bos_token"), token_text(about, "eos_token"))
        return cls(tokenizer, template, _length(context_length, max_model_len))

    def prepare(self, batch: ExecuteBatch, /) -> ExecuteBatch:
        """Return the batch with ``prompt_ids``, ``sampling.max_tokens`` and ``estimated_tokens`` settled.

        A ``max_tokens`` beyond what the context leaves is lowered to that.

        Raises:
            BadRequest: the prompt is empty, is not valid Unicode, does not fit the template, or holds ids outside the
                vocabulary; or a stop string is empty.
            ContextLengthExceeded: the prompt leaves no room for one more token.
        """
        self._check_stops(batch.sampling)
        ids = self._prompt_ids(batch)
        room = self.max_model_len - len(ids)
        if room < 1:
            raise ContextLengthExceeded(len(ids) + 1, self.max_model_len)
        max_tokens = min(batch.sampling.max_tokens or room, room)
        return attrs.evolve(
            batch,
            prompt_ids=tuple(ids),
            sampling=attrs.evolve(batch.sampling, max_tokens=max_tokens),
            estimated_tokens=len(ids) + max_tokens,
        )

    def output_decoder(self, sampling: SamplingParams) -> OutputDecoder:
        """Return a decoder for one answer.

        Raises:
            BadRequest: a stop string is empty.
        """
        return OutputDecoder(Detokenizer(self.tokenizer), StopMatcher(sampling.stop))

    def token_logprob(self, id: int, logprob: float, top: Sequence[tuple[int, float]] = ()) -> TokenLogprob:
        """Return a token in its place, with the spellings of itself and of ``top``, (id, log probability) each.

        Raises:
            Internal: an id is outside the vocabulary.
        """
        text = None if id in self.tokenizer.special_ids else self.tokenizer.token_bytes(id)
        others = tuple([self.token_logprob(*other) for other in top])
        return TokenLogprob(self.tokenizer.token_name(id), text, logprob, others)

    def _check_stops(self, sampling: SamplingParams) -> None:
        if "" in sampling.stop:
            raise BadRequest("a stop string must not be empty", param="stop")
        self._check_ids(sampling.stop_token_ids, "stop_token_ids")
        self._check_ids([id for id, _ in sampling.logit_bias], "logit_bias")

    def _check_ids(self, ids: Sequence[int], param: str) -> None:
        for id in ids:
            if not 0 <= id < self.tokenizer.vocab_size:
                message = f"token id {id} is outside the vocabulary of {self.tokenizer.vocab_size}"
                raise BadRequest(message, param=param)

    def _prompt_ids(self, batch: ExecuteBatch) -> Sequence[int]:
        if batch.messages:
            return self._encode(self._render(batch), param="messages", add_special=False)
        if isinstance(batch.prompt, str):
            return self._encode(batch.prompt, param="prompt", add_special=True)
        ids = batch.prompt or ()
        if not ids:
            raise BadRequest("the prompt is empty", param="prompt")
        if len(ids) < self.max_model_len:  # otherwise it is refused for its length, unread
            self._check_ids(ids, "prompt")
        return ids

    def _render(self, batch: ExecuteBatch) -> str:
        if self.template is None:
            message = "this model has no chat template: it can only complete plain prompts"
            raise BadRequest(message, param="messages")
        return self.template.render([{"role": str(turn.role), "content": turn.text} for turn in batch.messages])

    def _encode(self, text: str, *, param: str, add_special: bool) -> Sequence[int]:
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise BadRequest("the text is not valid Unicode: it holds half of a surrogate pair", param) from None
        # A token covers so many bytes at most: a text that cannot fit is refused before it costs anything.
        at_least = -(-size // self.tokenizer.max_token_bytes)
        if at_least > self.max_model_len:
            raise ContextLengthExceeded(at_least, self.max_model_len)
        ids = self.tokenizer.encode(text, add_special=add_special)
        if not text or not ids:
            raise BadRequest("the prompt is empty", param=param)
        return ids
