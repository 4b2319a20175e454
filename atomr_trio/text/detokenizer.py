"""Token ids to text as they come, never with half a character."""

import codecs
from collections.abc import Iterable

from attrs import define, field

from .tokenizer import Tokenizer

__all__ = ["Detokenizer"]


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")(errors="replace")


@define(eq=False)
class Detokenizer:
    """Decodes one sequence of tokens in any portions: all texts together are the text of all tokens together.

    Control tokens have no text. Bytes that begin a character wait for the rest of it (at most three of them); bytes
    that can no longer become one are U+FFFD at once.

    Args:
        tokenizer: the model's.
        shown: control tokens whose names are text here.
    """

    _tokenizer: Tokenizer = field(repr=False)
    _shown: frozenset[int] = field(default=frozenset(), repr=False)
    _hidden: frozenset[int] = field(init=False, repr=False)
    _decode: codecs.IncrementalDecoder = field(init=False, factory=_decoder, repr=False)

    def __attrs_post_init__(self) -> None:
        hidden = self._tokenizer.special_ids
        self._hidden = hidden - self._shown if self._shown else hidden

    def push(self, ids: Iterable[int]) -> str:
        """Return the text that these tokens complete.

        Raises:
            Internal: an id is outside the vocabulary.
        """
        token_bytes, hidden = self._tokenizer.token_bytes, self._hidden
        return self._decode.decode(b"".join([token_bytes(id) for id in ids if id not in hidden]))

    def flush(self) -> str:
        """Return what waits as U+FFFD, and begin anew."""
        rest = self._decode.decode(b"", final=True)
        self._decode.reset()
        return rest
