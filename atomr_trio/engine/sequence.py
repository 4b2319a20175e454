"""One sequence inside the engine: what is known of it, what is computed of it, and when it ends."""

import enum
from collections.abc import Iterable

from attrs import define, field

from atomr_trio.core import FinishReason, InferenceError

from .frames import SequenceRequest

__all__ = ["Sequence", "SequenceState", "finish_reason", "is_exhausted", "is_over_with"]


class SequenceState(enum.Enum):
    """Where a sequence stands."""

    WAITING = enum.auto()
    RUNNING = enum.auto()
    GONE = enum.auto()


@define(eq=False)
class Sequence:
    """A request on its way.

    ``num_computed`` catches up with ``length``; the step that makes them equal draws the next token. A prompt, a
    resumed answer and a decode differ only in how far behind they are. Both count from when a step is sent to the
    device: ``pending`` tokens are drawn there and not read yet.

    Args:
        request: what was asked.
        arrival: its place in the order of arrival.
        tokens: prompt and answer so far, as far as they are known here.
        num_computed: tokens whose keys and values are in the pages, or will be when the steps that were sent are done.
        pages: page of token ``p`` is ``pages[p // page_size]``.
        pending: tokens that steps on the device draw.
        chain: hashes of the full pages of ``tokens``, as far as anybody asked.
        remembered: pages whose hash the pool was told, or that were found by it.
        cached_tokens: prompt tokens that were found in the cache when it was admitted first, 0 if it goes on with an
            answer of an earlier process; ``None`` until then.
        life: counts how often it lost its pages; what a step computed for an earlier life is void.
        last_step: the last step that it took part in.
        reads_answer: what its next token may be depends on its answer, which has to be known on the host for it.
        refusal: why its guide allows no token.
    """

    request: SequenceRequest
    arrival: int
    tokens: list[int]
    num_computed: int = 0
    pages: list[int] = field(factory=list[int])
    state: SequenceState = SequenceState.WAITING
    pending: int = 0
    chain: list[bytes] = field(factory=list[bytes], repr=False)
    remembered: int = 0
    cached_tokens: int | None = None
    life: int = 0
    last_step: int = 0
    reads_answer: bool = False
    refusal: InferenceError | None = None

    @classmethod
    def of(cls, request: SequenceRequest, arrival: int) -> "Sequence":
        """Return a new sequence: the prompt and what was generated of its answer before."""
        return cls(request, arrival, [*request.prompt_ids, *request.generated])

    @property
    def id(self) -> int:
        """The request's number."""
        return self.request.id

    @property
    def is_resumed(self) -> bool:
        """It goes on with an answer of an earlier process, and has got nothing from this one yet."""
        return 0 < self.generated == len(self.request.generated)

    @property
    def prompt_len(self) -> int:
        """Tokens of the prompt."""
        return len(self.request.prompt_ids)

    @property
    def generated(self) -> int:
        """Tokens of the answer so far, earlier processes' included."""
        return len(self.tokens) - self.prompt_len

    @property
    def length(self) -> int:
        """Tokens, those included that are being drawn."""
        return len(self.tokens) + self.pending

    @property
    def remaining(self) -> int:
        """Tokens to compute before the next one can be drawn."""
        return self.length - self.num_computed

    @property
    def draws(self) -> bool:
        """Tokens are drawn after its prompt; if not, its prompt is all that is wanted."""
        return self.request.pooling is None

    @property
    def lacks_prompt(self) -> bool:
        """A piece of its prompt has to be computed before anything can be drawn."""
        return self.remaining > int(self.draws)

    @property
    def can_decode(self) -> bool:
        """The next step may draw its next token."""
        return self.draws and self.remaining == 1 and not (self.pending and self.reads_answer)

    @property
    def decodes_alone(self) -> bool:
        """The device can draw its next tokens one after the other: all of them in the same plain way."""
        before_min_tokens = self.generated + self.pending < self.request.min_tokens
        return not (self.reads_answer or self.request.top_logprobs or before_min_tokens)

    @property
    def needs_prompt_computed(self) -> bool:
        """Its prompt is scored, or its mean is wanted: every token has to go through the model, cached or not."""
        return self.request.pooling == "mean" or (self.request.prompt_logprobs and not self.generated)

    def void(self) -> None:
        """Forget what was computed, and what is being computed on the device."""
        self.pages = []
        self.num_computed = self.pending = self.remembered = 0
        self.life += 1


def is_exhausted(sequence: Sequence, max_model_len: int, more: int = 0) -> bool:
    """Return whether the tokens that are being drawn, and ``more`` after them, are the last that it can get.

    Never of one that draws none: it has its prompt to compute, and then it is over.
    """
    if not sequence.draws:
        return False
    answer = sequence.generated + sequence.pending + more
    return answer >= sequence.request.max_tokens or sequence.length + more >= max_model_len


def finish_reason(sequence: Sequence, max_model_len: int) -> FinishReason | None:
    """Return why a sequence is over after its last token, or ``None`` if it goes on.

    One that draws none is over when its prompt is computed, of which its tokens say nothing.
    """
    request = sequence.request
    if not sequence.draws:
        return None
    if sequence.generated and _is_end(request, sequence.tokens[-1]):
        return FinishReason.STOP
    if sequence.generated >= request.max_tokens or len(sequence.tokens) >= max_model_len:
        return FinishReason.LENGTH
    return None


def is_over_with(sequence: Sequence, tokens: Iterable[int]) -> bool:
    """Return whether one of these tokens would end the sequence by being what it is."""
    return any(_is_end(sequence.request, token) for token in tokens)


def _is_end(request: SequenceRequest, token: int) -> bool:
    return token in request.stop_ids or (not request.ignore_eos and token in request.eos_ids)
