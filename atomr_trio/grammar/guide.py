# pyright: reportUnknownMemberType=false
"""Guides of answers: which tokens may come next, by a rule. Lives in the device process."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from attrs import define, field

from atomr_trio.core import Grammar, Unsupported

from .compiler import UnreadableRule, explain, new_matcher, new_tokenizer
from .rules import Rule, refusal, rule_of

__all__ = ["GrammarGuide", "Words"]

Masks = npt.NDArray[np.int32]

_KEPT = 16
"""Rules that stay compiled: the choices of a request have the same one, and so have most requests of a client."""


@define(eq=False)
class GrammarGuide:
    """Follows one answer. Not safe to use from several threads at once.

    Args:
        matcher: of the rule, at the beginning.
        ends: i32 ``[W]``: the bits of the tokens that end an answer.
    """

    _matcher: Any
    _ends: Masks
    _taken: int = field(init=False, default=0)

    def allowed(self, generated: Sequence[int], /) -> Masks:
        """Return i32 ``[W]``: a bit per token that may come next, the end where the rule is complete.

        Args:
            generated: the answer so far; what was seen before need not be followed again.

        Raises:
            BadRequest: the answer is none that the rule allows, or to follow it takes more than the limits allow.
        """
        self._follow(generated)
        words = self._ends.size
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.int32)[:words]
        # The library lets the answer end where it fails, which would look like a success.
        self._check()
        return mask | self._ends if (mask & self._ends).any() else mask

    def _follow(self, generated: Sequence[int]) -> None:
        if len(generated) < self._taken:
            self._matcher.rollback(self._taken - len(generated))
            self._taken = len(generated)
        if len(generated) > self._taken:
            self._matcher.consume_tokens(list(generated[self._taken :]))
            self._taken = len(generated)
            self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise refusal(explain(self._matcher.get_error()))


class Words:
    """A model's vocabulary, for which guides are made. It is read when the first of them is.

    Args:
        vocab_size: ``V``: how many logits there are.
        tokens: what each token stands for.
        special_ids: control tokens.
        end_ids: tokens that end an answer.
    """

    def __init__(
        self, vocab_size: int, tokens: Sequence[bytes], special_ids: Sequence[int], end_ids: Sequence[int]
    ) -> None:
        # A model may have more logits than its tokenizer has tokens; nothing is said with the rest.
        self._tokens = [*tokens[:vocab_size], *[b""] * (vocab_size - len(tokens))]
        self._special = sorted({*special_ids, *end_ids})
        self._end_ids = sorted(id for id in {*end_ids} if id < vocab_size)
        self._tokenizer: Any = None
        self._compiled = lru_cache(_KEPT)(self._compile)

    def guide(self, grammar: Grammar) -> GrammarGuide:
        """Return a guide at the beginning of an answer.

        Raises:
            BadRequest: the grammar is wrong, too complex, or allows no answer.
            Unsupported: the model has no token that ends an answer, or the library is not installed.
        """
        if not self._end_ids:
            raise Unsupported("structured output without an end token", "jax")
        return GrammarGuide(self._compiled(rule_of(grammar)).deep_copy(), self._ends())

    def _compile(self, rule: Rule) -> Any:
        try:
            if self._tokenizer is None:
                self._tokenizer = new_tokenizer(self._tokens, self._special, self._end_ids[0])
            return new_matcher(self._tokenizer, rule.kind, rule.text)
        except UnreadableRule as error:
            raise refusal(str(error)) from None
        except ImportError:
            raise Unsupported("structured output without llguidance", "jax") from None

    def _ends(self) -> Masks:
        bits = np.zeros(-(-len(self._tokens) // 32) * 32, np.uint8)
        bits[self._end_ids] = 1
        return np.packbits(bits, bitorder="little").view(np.int32)
