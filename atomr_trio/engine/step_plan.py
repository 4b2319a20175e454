"""The work of one step: what is planned, what was sent to the device, and what came back."""

from attrs import frozen

from atomr_trio.core import FinishReason

from .sequence import Sequence
from .settings import Pooling

__all__ = ["Accepted", "Chunk", "SentStep", "Share", "StepPlan"]


@frozen
class Chunk:
    """A piece of a prompt: tokens ``start .. start + length`` of a sequence."""

    sequence: Sequence
    start: int
    length: int

    @property
    def completes(self) -> bool:
        """It is the last piece."""
        return self.start + self.length == len(self.sequence.tokens)

    @property
    def draws(self) -> bool:
        """After this chunk the next token is drawn."""
        return self.completes and self.sequence.draws

    @property
    def pooled(self) -> Pooling | None:
        """How the model's output for this chunk becomes a part of an embedding, if it does."""
        pooling = self.sequence.request.pooling
        return pooling if self.completes or pooling == "mean" else None


@frozen
class StepPlan:
    """The work of one step.

    Args:
        decodes: those whose last token is computed, and the next one drawn.
        chunks: pieces of prompts, each of another one.
        steps: how often that is done with ``decodes``, each time with the token that was drawn before; they have the
            pages for it. More than once only if there are no chunks. Once is always as right, and slower.
    """

    decodes: tuple[Sequence, ...]
    chunks: tuple[Chunk, ...] = ()
    steps: int = 1

    @property
    def tokens(self) -> int:
        """Rows that are computed."""
        return len(self.decodes) * self.steps + sum(chunk.length for chunk in self.chunks)

    @property
    def sequences(self) -> tuple[Sequence, ...]:
        """Everybody who takes part."""
        return *self.decodes, *(chunk.sequence for chunk in self.chunks)

    @property
    def drawing(self) -> tuple[Sequence, ...]:
        """Those who get tokens from this step."""
        return *self.decodes, *(chunk.sequence for chunk in self.chunks if chunk.draws)


@frozen
class Share:
    """What a step does for one sequence.

    Args:
        sequence: whose.
        life: which of its lives.
        computed: how many of its tokens are computed after the step.
        draws: how many tokens the step draws for it.
    """

    sequence: Sequence
    life: int
    computed: int
    draws: int

    @property
    def counts(self) -> bool:
        """The sequence is still there and has kept its pages."""
        return self.sequence.life == self.life


@frozen(eq=False)
class SentStep:
    """A step that is on the device.

    Args:
        number: of the step, from 1 on.
        shares: who takes part.
        coming: hashes of the prompt pages that it completes.
    """

    number: int
    shares: tuple[Share, ...]
    coming: frozenset[bytes]


@frozen
class Accepted:
    """Tokens that were added to a sequence, and why the last of them was the very last, if so.

    None were added to one that is over with its prompt.
    """

    sequence: Sequence
    tokens: tuple[int, ...]
    finish_reason: FinishReason | None
