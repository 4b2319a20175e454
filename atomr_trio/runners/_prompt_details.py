"""What is known of the tokens of a prompt, put into words when somebody wants to read it."""

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import repeat
from typing import Self

from attrs import frozen

from atomr_trio.core import TokenLogprob
from atomr_trio.engine import frames

__all__ = ["Describe", "PromptDetails"]

Describe = Callable[[int, float, Sequence[tuple[int, float]]], TokenLogprob]
"""Makes a ``TokenLogprob`` of a token, its log probability and those of others."""


@frozen
class PromptDetails(Collection[TokenLogprob]):
    """The tokens of a prompt, in order.

    They are spelled anew each time they are gone through: with thousands of tokens that takes a while, which who reads
    the device's frames does not have.

    Args:
        ids: of the prompt.
        logprobs: of each token; ``None`` for the first.
        tops: the most likely tokens in the place of each; ``None``: unasked for.
        describe: spells them.
    """

    _ids: Sequence[int]
    _logprobs: Sequence[float | None]
    _tops: Sequence[Sequence[tuple[int, float]]] | None
    _describe: Describe

    @classmethod
    def of(cls, ids: Sequence[int], describe: Describe, output: frames.SequenceOutput) -> Self | None:
        """Take them from what a step brought; ``None``: it brought none."""
        if output.prompt_logprobs is None:
            return None
        return cls(ids, output.prompt_logprobs, output.prompt_top_logprobs, describe)

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[TokenLogprob]:
        places = zip(self._ids, self._logprobs, self._tops or repeat(()), strict=False)
        return (self._describe(id, logprob or 0.0, top) for id, logprob, top in places)

    def __contains__(self, token: object) -> bool:
        return any(token == each for each in self)
