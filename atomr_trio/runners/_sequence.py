"""A request in the device process: how it is told, how its tokens become chunks, and what a refusal means."""

import random
from collections.abc import Callable, Sequence
from itertools import repeat

import trio
from attrs import define, field

from atomr_trio.core import (
    Backpressure,
    BadRequest,
    ChunkSink,
    ContextLengthExceeded,
    Embedding,
    ExecuteBatch,
    FinishReason,
    InferenceError,
    Internal,
    TokenChunk,
    TokenLogprob,
    TokenUsage,
    Unsupported,
)
from atomr_trio.engine import frames
from atomr_trio.engine.settings import Pooling
from atomr_trio.text import OutputDecoder, TextCodec

from ._prompt_details import Describe, PromptDetails

__all__ = ["OpenSequence", "rejection", "sequence_request"]


@define(eq=False)
class OpenSequence:
    """One request in the device process: turns its tokens into chunks, inline with the reader.

    Args:
        out: where the chunks go.
        decoder: of its text.
        prompt_tokens: of its prompt.
        describe: spells the tokens of the answer; ``None``: unasked for.
        describe_prompt: the same for those of the prompt.
        stop_ids: tokens that end the answer and are no part of it.
        embeds: the answer is an embedding, which takes no place in the context.
    """

    out: ChunkSink
    decoder: OutputDecoder
    prompt_tokens: int
    describe: Describe | None = None
    describe_prompt: Callable[[frames.SequenceOutput], PromptDetails | None] | None = None
    stop_ids: frozenset[int] = frozenset()
    embeds: bool = False
    output_tokens: int = 0
    ended_by_engine: bool = False
    error: InferenceError | None = None
    done: trio.Event = field(factory=trio.Event)

    def catch_up(self, told: Sequence[int]) -> None:
        """Take what an earlier process generated: the client has its text, and what was held back of it is here."""
        self.decoder.push(told)
        self.output_tokens = len(told)

    def take(self, output: frames.SequenceOutput) -> None:
        """Take what a step added."""
        ids = output.token_ids
        # A token that ends the answer by its id is counted, but its text is not part of the answer.
        silent = int(bool(ids) and ids[-1] in self.stop_ids)
        before = self.decoder.tokens
        text, stopped = self.decoder.push(ids[: len(ids) - silent])
        if output.finish_reason is not None and not stopped:
            text += self.decoder.finish()
        # A stop string may be complete before the last of these tokens: the rest was never said.
        taken = self.decoder.tokens - before + (0 if stopped else silent)
        self.output_tokens += taken
        finish = FinishReason.STOP if stopped else output.finish_reason
        self.ended_by_engine = output.finish_reason is not None
        self.out.push(
            TokenChunk(
                text_delta=text,
                token_ids=tuple(ids[:taken]),
                logprobs=() if self.describe is None else tuple((output.logprobs or ())[:taken]),
                details=self._details(output, taken),
                prompt_details=(self.describe_prompt and self.describe_prompt(output)) or (),
                embedding=None if output.embedding is None else Embedding(output.embedding),
                usage=None if finish is None else self._usage(output),
                finish_reason=finish,
                stop_string=self.decoder.stop_string if stopped else None,
            )
        )
        if finish is not None:
            self.done.set()

    def fail(self, error: InferenceError) -> None:
        """End it with an error."""
        self.error = error
        self.done.set()

    def _details(self, output: frames.SequenceOutput, taken: int) -> tuple[TokenLogprob, ...]:
        if self.describe is None or output.logprobs is None:
            return ()
        tops = output.top_logprobs or repeat(())
        places = zip(output.token_ids[:taken], output.logprobs, tops, strict=False)
        return tuple([self.describe(*place) for place in places])

    def _usage(self, output: frames.SequenceOutput) -> TokenUsage:
        reasoning = self.decoder.reasoning_tokens
        return TokenUsage(self.prompt_tokens, self.output_tokens, reasoning, output.cached_tokens)


def sequence_request(
    sequence_id: int, batch: ExecuteBatch, codec: TextCodec, pooling: Pooling = "last"
) -> frames.SequenceRequest:
    """Return a request in the words of the device process; an embedding is made by this ``pooling``."""
    sampling = batch.sampling
    return frames.SequenceRequest(
        id=sequence_id,
        prompt_ids=list(batch.prompt_ids or ()),
        generated=list(batch.generated),
        max_tokens=sampling.max_tokens or 1,
        temperature=1.0 if sampling.temperature is None else sampling.temperature,
        top_k=max(0, sampling.top_k or 0),
        top_p=1.0 if sampling.top_p is None else sampling.top_p,
        min_p=sampling.min_p or 0.0,
        seed=random.getrandbits(64) if sampling.seed is None else sampling.seed % 2**64,
        eos_ids=sorted(codec.tokenizer.eos_ids),
        stop_ids=list(sampling.stop_token_ids),
        ignore_eos=sampling.ignore_eos,
        min_tokens=sampling.min_tokens,
        logprobs=sampling.logprobs,
        prompt_logprobs=sampling.prompt_logprobs,
        prompt_top_logprobs=sampling.prompt_top_logprobs if sampling.prompt_logprobs else 0,
        top_logprobs=sampling.top_logprobs if sampling.logprobs else 0,
        repetition_penalty=1.0 if sampling.repetition_penalty is None else sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty or 0.0,
        frequency_penalty=sampling.frequency_penalty or 0.0,
        logit_bias=list(sampling.logit_bias),
        priority=batch.priority,
        salt=batch.cache_salt,
        grammar=sampling.grammar,
        pooling=pooling if batch.embed else None,
    )


def rejection(frame: frames.Rejected, sequence: OpenSequence, device: frames.Ready | None) -> InferenceError:
    """Return the error with which the device process refused a sequence."""
    if frame.kind == ContextLengthExceeded.kind and device is not None:
        return ContextLengthExceeded(sequence.prompt_tokens + (not sequence.embeds), device.max_model_len)
    if frame.kind == BadRequest.kind:
        return BadRequest(frame.message)
    if frame.kind == Unsupported.kind:
        return Unsupported("structured output", "jax")
    if frame.kind == Backpressure.kind:
        return Backpressure(frame.message)
    return Internal(frame.message)
