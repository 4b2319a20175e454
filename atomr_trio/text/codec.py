"""The text side of one model: requests into token ids, token ids into text."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

import attrs
from attrs import define, field

from atomr_trio.core import (
    AnswerForm,
    BadRequest,
    ContextLengthExceeded,
    ExecuteBatch,
    Grammar,
    ModelLoadError,
    SamplingParams,
    Tokenize,
    TokenLogprob,
)
from atomr_trio.formats import GgufFile, HfFolder

from ._hf_tokenizer import token_text
from .detokenizer import Detokenizer
from .dialogue import Dialogue
from .stops import StopMatcher
from .template import ChatTemplate
from .thoughts import ThoughtCounter
from .tokenizer import Tokenizer

__all__ = ["OutputDecoder", "TextCodec"]


@define(eq=False)
class OutputDecoder:
    """Makes text of one request's tokens, up to its first stop string."""

    _detokenizer: Detokenizer = field(repr=False)
    _stops: StopMatcher = field(repr=False)
    _thoughts: ThoughtCounter | None = field(default=None, repr=False)
    tokens: int = field(default=0, init=False)
    """How many ids were taken: after a stop, those up to the one that completed it."""

    @property
    def stopped(self) -> bool:
        """A stop string has ended the answer."""
        return self._stops.matched

    @property
    def stop_string(self) -> str | None:
        """The stop string that has ended the answer."""
        return self._stops.found

    @property
    def reasoning_tokens(self) -> int:
        """How many of them are reasoning."""
        return 0 if self._thoughts is None else self._thoughts.tokens

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
            text = self._detokenizer.push((id,))
            if self._thoughts is not None:
                self._thoughts.push(text)
            shown.append(self._stops.push(text)[0])
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


def _utf8_size(text: str, param: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise BadRequest("the text is not valid Unicode: it holds half of a surrogate pair", param) from None


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
        tool_style: how it calls functions.
        thought_style: how it marks its reasoning.

    Raises:
        ModelLoadError: there is no such style.
    """

    tokenizer: Tokenizer
    template: ChatTemplate | None
    max_model_len: int
    tool_style: str = "auto"
    thought_style: str = "auto"
    _dialogue: Dialogue | None = field(init=False, default=None, repr=False)
    # The marks of calls and reasoning that are control tokens here, by their spelling.
    _marks: Mapping[str, int] = field(init=False, factory=dict[str, int], repr=False)

    def __attrs_post_init__(self) -> None:
        if self.template is not None:
            self._dialogue = Dialogue(self.template, self.tool_style, self.thought_style)
            names = {self.tokenizer.token_name(id): id for id in self.tokenizer.special_ids}
            self._marks = {mark: names[mark] for mark in self._dialogue.marks if mark in names}

    @classmethod
    def from_gguf(cls, path: str | os.PathLike[str], max_model_len: int | None = None, **styles: str) -> Self:
        """Read tokenizer, template and context length from a model file.

        Args:
            path: the GGUF file.
            max_model_len: serve a shorter context than the model's own.
            styles: ``tool_style`` and ``thought_style``.

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
        return cls(tokenizer, _template(fields, tokenizer), _length(trained, max_model_len), **styles)

    @classmethod
    def from_folder(
        cls, path: str | os.PathLike[str], context_length: int, max_model_len: int | None = None, **styles: str
    ) -> Self:
        """Read tokenizer and template from a Hugging Face folder.

        Args:
            path: the folder.
            context_length: what the model was made for, in tokens.
            max_model_len: serve a shorter context than that.
            styles: ``tool_style`` and ``thought_style``.

        Raises:
            ModelLoadError: a file cannot be read, or the tokenizer or template is not supported.
        """
        folder = HfFolder(path)
        tokenizer, about, source = Tokenizer.from_folder(folder), folder.tokenizer_config, folder.chat_template
        template = None
        if source is not None:
            template = ChatTemplate(source, token_text(about, "bos_token"), token_text(about, "eos_token"))
        return cls(tokenizer, template, _length(context_length, max_model_len), **styles)

    def prepare(self, batch: ExecuteBatch, /) -> ExecuteBatch:
        """Return the batch with ``prompt_ids``, ``form``, ``sampling.max_tokens`` and ``estimated_tokens`` settled.

        A ``max_tokens`` beyond what the context leaves is lowered to that. Where a function must be called,
        ``sampling.grammar`` says so; where one may be called, or reasoning may come first, a client's own makes room.
        Of a batch that wants an embedding only the prompt matters, which may fill the context.

        Raises:
            BadRequest: the prompt is empty, is not valid Unicode, does not fit the template, or holds ids outside the
                vocabulary; or a stop string is empty.
            ContextLengthExceeded: the prompt leaves no room for one more token.
        """
        if batch.embed:
            return self._prepare_to_embed(batch)
        self._check_stops(batch.sampling)
        ids, form = self._prompt(batch)
        room = self.max_model_len - len(ids)
        if room < 1:
            raise ContextLengthExceeded(len(ids) + 1, self.max_model_len)
        max_tokens = min(batch.sampling.max_tokens or room, room)
        return attrs.evolve(
            batch,
            prompt_ids=tuple(ids),
            form=form,
            sampling=attrs.evolve(batch.sampling, max_tokens=max_tokens, grammar=self._grammar(batch, form)),
            estimated_tokens=len(ids) + max_tokens,
        )

    def tokenize(self, question: Tokenize, /) -> tuple[int, ...]:
        """Return the token ids of a text or of a conversation.

        Raises:
            BadRequest: the messages do not fit the template, or the text is not valid Unicode.
        """
        text = self._talking().render(question) if question.messages else question.text
        _utf8_size(text, "messages" if question.messages else "prompt")
        special = {"add_special": question.add_special, "parse_special": question.parse_special}
        return tuple(self.tokenizer.encode(text, **special))

    def spell(self, ids: Sequence[int], /) -> tuple[bytes, ...]:
        """Return the bytes of each token, those of its name for a control token.

        Raises:
            BadRequest: an id is outside the vocabulary.
        """
        self._check_ids(ids, "tokens")
        return tuple(map(self.tokenizer.token_bytes, ids))

    def output_decoder(self, sampling: SamplingParams, form: AnswerForm | None = None) -> OutputDecoder:
        """Return a decoder for one answer.

        Args:
            sampling: of the request.
            form: of the answer; with it, marks of calls and of reasoning are text though they are control tokens.

        Raises:
            BadRequest: a stop string is empty.
        """
        shown = frozenset(self._marks.values()) if form is not None else frozenset[int]()
        counter = None
        if form is not None and form.thoughts is not None:
            counter = ThoughtCounter(*form.thoughts, form.thinking)
        return OutputDecoder(Detokenizer(self.tokenizer, shown), StopMatcher(sampling.stop), counter)

    def token_logprob(self, id: int, logprob: float, top: Sequence[tuple[int, float]] = ()) -> TokenLogprob:
        """Return a token in its place, with the spellings of itself and of ``top``, (id, log probability) each.

        Raises:
            Internal: an id is outside the vocabulary.
        """
        text = None if id in self.tokenizer.special_ids else self.tokenizer.token_bytes(id)
        others = tuple([self.token_logprob(*other) for other in top])
        return TokenLogprob(self.tokenizer.token_name(id), text, logprob, others, id)

    def _prepare_to_embed(self, batch: ExecuteBatch) -> ExecuteBatch:
        ids, _ = self._prompt(batch)
        if len(ids) > self.max_model_len:
            raise ContextLengthExceeded(len(ids), self.max_model_len)
        return attrs.evolve(batch, prompt_ids=tuple(ids), estimated_tokens=len(ids))

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

    def _grammar(self, batch: ExecuteBatch, form: AnswerForm | None) -> Grammar | None:
        if self._dialogue is None or form is None:
            return batch.sampling.grammar
        return self._dialogue.grammar(form, batch, self._marks)

    def _prompt(self, batch: ExecuteBatch) -> tuple[Sequence[int], AnswerForm | None]:
        if not batch.messages:
            return self._plain_ids(batch), None
        dialogue = self._talking()
        prompt = dialogue.render(batch)
        return self._encode(prompt, param="messages", add_special=False), dialogue.form(prompt, batch)

    def _plain_ids(self, batch: ExecuteBatch) -> Sequence[int]:
        if isinstance(batch.prompt, str):
            return self._encode(batch.prompt, param="prompt", add_special=True)
        ids = batch.prompt or ()
        if not ids:
            raise BadRequest("the prompt is empty", param="prompt")
        if len(ids) <= self.max_model_len:  # otherwise it is refused for its length, unread
            self._check_ids(ids, "prompt")
        return ids

    def _talking(self) -> Dialogue:
        if self._dialogue is None:
            message = "this model has no chat template: it can only complete plain prompts"
            raise BadRequest(message, param="messages")
        return self._dialogue

    def _encode(self, text: str, *, param: str, add_special: bool) -> Sequence[int]:
        size = _utf8_size(text, param)
        # A token covers so many bytes at most: a text that cannot fit is refused before it costs anything.
        at_least = -(-size // self.tokenizer.max_token_bytes)
        if at_least > self.max_model_len:
            raise ContextLengthExceeded(at_least, self.max_model_len)
        ids = self.tokenizer.encode(text, add_special=add_special)
        if not text or not ids:
            raise BadRequest("the prompt is empty", param=param)
        return ids
