"""Guides for requests with a grammar, made beside the steps: reading a grammar may take a second."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from attrs import define, field

from atomr_trio.core import Backpressure, BadRequest, InferenceError, Internal
from atomr_trio.grammar.guide import GrammarGuide, Words

from .frames import SequenceRequest, Vocabulary

__all__ = ["Guided", "Guides"]

logger: logging.Logger = logging.getLogger(__name__)

Guided = tuple[SequenceRequest, GrammarGuide | InferenceError]
"""A request, with its guide or with the reason why it has none."""


def _one_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "guides")


@define(eq=False)
class Guides:
    """Makes guides in a thread of its own, one after the other.

    Args:
        vocab_size: how many logits the model has.
        limit: how many requests may wait for theirs.
        wake: called from that thread when one more has it.
    """

    _vocab_size: int
    _limit: int
    _wake: Callable[[], None]
    _words: Words | None = field(init=False, default=None)
    _pool: ThreadPoolExecutor = field(init=False, factory=_one_thread)
    _waiting: "dict[int, tuple[SequenceRequest, Future[GrammarGuide]]]" = field(
        init=False, factory=dict[int, "tuple[SequenceRequest, Future[GrammarGuide]]"]
    )

    @property
    def busy(self) -> bool:
        """There are requests without a guide yet."""
        return bool(self._waiting)

    def learn(self, vocabulary: Vocabulary) -> None:
        """Take the model's vocabulary. What it takes to guide with it is done when the first grammar comes."""
        self._words = Words(self._vocab_size, vocabulary.tokens, vocabulary.special_ids, vocabulary.end_ids)

    def begin(self, request: SequenceRequest) -> None:
        """Make the guide of a request that has a grammar; it comes out of `ready`.

        Raises:
            BadRequest: there is no vocabulary, or the request's number is in use.
            Backpressure: too many are waiting.
        """
        if self._words is None:
            raise BadRequest("the vocabulary is not known: no answer can keep to a grammar", param="grammar")
        if request.id in self._waiting:
            raise BadRequest(f"request {request.id} is already open")
        if len(self._waiting) >= self._limit:
            raise Backpressure("too many requests are waiting for their grammars")
        made = self._pool.submit(_guide, self._words, request)
        self._waiting[request.id] = request, made
        made.add_done_callback(lambda _: self._wake())

    def forget(self, number: int) -> bool:
        """Drop a request; false: it is not waiting (any more)."""
        if number not in self._waiting:
            return False
        _, made = self._waiting.pop(number)
        made.cancel()
        return True

    def ready(self) -> list[Guided]:
        """Return the requests whose guide is made, or cannot be; each of them once, the oldest first."""
        done = [number for number, (_, made) in self._waiting.items() if made.done()]
        return [_outcome(*self._waiting.pop(number)) for number in done]


def _guide(words: Words, request: SequenceRequest) -> GrammarGuide:
    if request.grammar is None:
        raise BadRequest("there is no grammar")
    guide = words.guide(request.grammar)
    # What an earlier process said of the answer is followed here, and not while others wait for their tokens.
    guide.allowed(request.generated)
    return guide


def _outcome(request: SequenceRequest, made: "Future[GrammarGuide]") -> Guided:
    try:
        return request, made.result()
    except InferenceError as error:
        return request, error
    except Exception as error:
        logger.error("the guide of request %d cannot be made", request.id, exc_info=error)
        return request, Internal("the grammar of the answer could not be read")
