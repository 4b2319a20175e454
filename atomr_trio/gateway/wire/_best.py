"""Which of several answers to a prompt are told. Pure."""

import math
from collections.abc import Sequence

from attrs import evolve

from atomr_trio.core import Tokens

__all__ = ["best_choices"]


def best_choices(answers: Sequence[Tokens], drawn: int, n: int) -> list[Tokens]:
    """The ``n`` likeliest of each prompt's ``drawn`` answers, by their log probability per token, best first.

    If all are told, they keep their order; and where a runner knows no log probabilities the first ones are as good as
    any. What the first answer to a prompt says of it is said of all.
    """
    prompts = [answers[start : start + drawn] for start in range(0, len(answers), drawn)]
    return [evolve(one, prompt_details=of_one[0].prompt_details) for of_one in prompts for one in _best(of_one, n)]


def _best(answers: Sequence[Tokens], n: int) -> Sequence[Tokens]:
    return answers if len(answers) == n else sorted(answers, key=_likelihood, reverse=True)[:n]


def _likelihood(answer: Tokens) -> float:
    return math.fsum(answer.logprobs) / len(answer.logprobs) if answer.logprobs else -math.inf
