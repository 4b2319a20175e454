"""Collects the log probabilities of prompt tokens over the chunks of a prompt."""

from attrs import define, field

from .drawing import DrawnToken
from .scheduler import Chunk
from .sequence import Sequence

__all__ = ["PromptScores", "Scored"]


@define
class Scored:
    """What is known of a prompt's tokens. Nothing is said of the first one: nothing comes before it.

    Args:
        logprobs: of each of them; ``None`` for the first.
        top: the most likely tokens in the place of each of them, best first, as many as were asked for.
    """

    logprobs: list[float | None]
    top: list[list[tuple[int, float]]]


@define
class PromptScores:
    """Log probabilities of the prompts that asked for them, until they are sent with the first token."""

    _open: dict[int, Scored] = field(init=False, factory=dict[int, Scored])

    def begin(self, sequence: Sequence) -> None:
        """Start to collect, if the request asks for it and no earlier process has sent them."""
        if sequence.request.prompt_logprobs and not sequence.request.generated:
            length = sequence.prompt_len
            self._open[sequence.id] = Scored([None] * length, [[] for _ in range(length)])

    def wanted(self, chunk: Chunk) -> bool:
        """This chunk's program has to return scores."""
        return chunk.sequence.id in self._open

    def record(self, chunk: Chunk, scores: list[DrawnToken]) -> None:
        """Book what a chunk brought: the score of token ``start + 1 + i`` is ``scores[i]``."""
        if chunk.sequence.id not in self._open:
            return
        collected = self._open[chunk.sequence.id]
        many = chunk.sequence.request.prompt_top_logprobs
        # The last position scores the token that is being drawn, which is not part of the prompt.
        for index, score in enumerate(scores[: len(collected.logprobs) - chunk.start - 1], chunk.start + 1):
            collected.logprobs[index] = score.logprob
            collected.top[index] = list(score.top[:many])

    def take(self, request_id: int) -> Scored | None:
        """Return what was collected, once."""
        return self._open.pop(request_id, None)

    def forget(self, request_id: int) -> None:
        """Drop what was collected."""
        self._open.pop(request_id, None)
