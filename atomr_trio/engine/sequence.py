"""One sequence inside the engine: what is known of it, what is computed of it, and when it ends."""

import enum

from attrs import define, field

from atomr_trio.core import FinishReason

from .frames import SequenceRequest

__all__ = ["Sequence", "SequenceState", "finish_reason"]


class SequenceState(enum.Enum):
    """Where a sequence stands."""

    WAITING = enum.auto()
    RUNNING = enum.auto()
    GONE = enum.auto()


@define(eq=False)
class Sequence:
    """A request on its way.

    ``num_computed`` (tokens whose keys and values are in the pages) catches up with ``len(tokens)``; the step that
    makes them equal draws the next token. A prompt, a resumed answer and a decode differ only in how far behind
    they are.

    Args:
        request: what was asked.
        arrival: its place in the order of arrival.
        tokens: prompt and answer so far.
        num_computed: tokens that need not be computed again.
        pages: page of token ``p`` is ``pages[p // page_size]``.
    """

    request: SequenceRequest
    arrival: int
    tokens: list[int]
    num_computed: int = 0
    pages: list[int] = field(factory=list[int])
    state: SequenceState = SequenceState.WAITING

    @classmethod
    def of(cls, request: SequenceRequest, arrival: int) -> "Sequence":
        """Return a new sequence: the prompt and what was generated of its answer before."""
        return cls(request, arrival, [*request.prompt_ids, *request.generated])

    @property
    def id(self) -> int:
        """The request's number."""
        return self.request.id

    @property
    def prompt_len(self) -> int:
        """Tokens of the prompt."""
        return len(self.request.prompt_ids)

    @property
    def generated(self) -> int:
        """Tokens of the answer so far, earlier processes' included."""
        return len(self.tokens) - self.prompt_len

    @property
    def remaining(self) -> int:
        """Tokens to compute before the next one can be drawn."""
        return len(self.tokens) - self.num_computed


def finish_reason(sequence: Sequence, max_model_len: int) -> FinishReason | None:
    """Return why a sequence is over after its last token, or ``None`` if it goes on."""
    request = sequence.request
    if sequence.generated and _is_end(request, sequence.tokens[-1]):
        return FinishReason.STOP
    if sequence.generated >= request.max_tokens or len(sequence.tokens) >= max_model_len:
        return FinishReason.LENGTH
    return None


def _is_end(request: SequenceRequest, token: int) -> bool:
    return token in request.stop_ids or (not request.ignore_eos and token in request.eos_ids)
