"""Synthetic prompts: seeded, of a given length, and without a common beginning unless one is asked for. Pure."""

import random
from collections.abc import Iterator, Sequence
from itertools import count

from attrs import frozen

__all__ = ["WORDS", "Prompt", "PromptMaker", "token_range"]

Prompt = str | tuple[int, ...]
"""A text, or token ids."""

# Most tokenizers have each of these, with a space before it, as one token.
_TEXT = """
time year people way day man thing woman life child world school state family student group country problem
hand part place case week company system program question work government number night point home water room
mother area money story fact month lot right study book eye job word business issue side kind head house
service friend father power hour game line end member law car city community name
"""
WORDS = tuple(_TEXT.split())

_FIRST_ID, _LAST_ID = 1000, 30_000


def token_range(vocabulary: int | None) -> range:
    """Return ids to draw from: no special tokens, which lie at the very beginning or end of a vocabulary.

    Args:
        vocabulary: its size; ``None``: unknown, but not small.
    """
    size = _LAST_ID if vocabulary is None else vocabulary
    return range(min(_FIRST_ID, size // 4), min(_LAST_ID, size))


@frozen(kw_only=True)
class PromptMaker:
    """Makes the prompts of one benchmark: number ``i`` is always the same for the same arguments.

    Args:
        tokens: length. A text has as many words, so its tokens are only about so many.
        shared: how many of them, from the first, are the same in all prompts.
        seed: two different ones have no beginning in common.
        ids: where token ids are drawn from; ``None`` makes texts.
    """

    tokens: int
    shared: int = 0
    seed: int = 0
    ids: Sequence[int] | None = None

    def prompts(self) -> Iterator[Prompt]:
        """Yield prompts without end."""
        return map(self.prompt, count())

    def prompt(self, number: int) -> Prompt:
        """Return one."""
        shared = min(self.shared, self.tokens)
        alphabet = range(len(WORDS)) if self.ids is None else self.ids
        drawn = random.Random(f"{self.seed} shared").choices(alphabet, k=shared)
        drawn += random.Random(f"{self.seed} {number}").choices(alphabet, k=self.tokens - shared)
        return tuple(drawn) if self.ids is not None else " ".join(WORDS[index] for index in drawn)
