"""Completions that begin with their prompt. Pure."""

from collections.abc import Sequence

from attrs import evolve, frozen

from atomr_trio.core import FinishReason, TokenChunk

__all__ = ["Echo"]


@frozen
class Echo:
    """What answers begin with.

    Args:
        texts: of the prompts.
        n: how many choices each has.
        alone: nothing follows. An engine gives at least one token, so what it gives is left out.
    """

    _texts: Sequence[str]
    _n: int = 1
    alone: bool = False

    def text(self, index: int) -> str:
        """The prompt of a choice."""
        return self._texts[index // self._n]

    def cut(self, chunk: TokenChunk) -> TokenChunk:
        """What is told of a chunk."""
        if not self.alone:
            return chunk
        # As long as was allowed, which is nothing.
        reason = None if chunk.finish_reason is None else FinishReason.LENGTH
        return evolve(chunk, text_delta="", token_ids=(), details=(), finish_reason=reason)
