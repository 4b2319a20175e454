"""Collects the log probabilities of prompt tokens over the chunks of a prompt."""

from attrs import define, field

from .scheduler import Chunk
from .sequence import Sequence

__all__ = ["PromptScores"]


@define
class PromptScores:
    """Log probabilities of the prompts that asked for them, until they are sent with the first token."""

    _open: dict[int, list[float | None]] = field(init=False, factory=dict[int, list[float | None]])

    def begin(self, sequence: Sequence) -> None:
        """Start to collect, if the request asks for it and no earlier process has sent them."""
        if sequence.request.prompt_logprobs and not sequence.request.generated:
            self._open[sequence.id] = [None] * sequence.prompt_len

    def wanted(self, chunk: Chunk) -> bool:
        """This chunk's program has to return scores."""
        return chunk.sequence.id in self._open

    def record(self, chunk: Chunk, scores: list[float]) -> None:
        """Book what a chunk brought: the score of token ``start + 1 + i`` is ``scores[i]``."""
        if chunk.sequence.id not in self._open:
            return
        collected = self._open[chunk.sequence.id]
        # The last position scores the token that is being drawn, which is not part of the prompt.
        for index, score in enumerate(scores, chunk.start + 1):
            if index < len(collected):
                collected[index] = score

    def take(self, request_id: int) -> list[float | None] | None:
        """Return what was collected, once."""
        return self._open.pop(request_id, None)

    def forget(self, request_id: int) -> None:
        """Drop what was collected."""
        self._open.pop(request_id, None)
