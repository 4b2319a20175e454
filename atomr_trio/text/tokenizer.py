"""Text to token ids and back, rebuilt from a GGUF file or read from a Hugging Face folder."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import tokenizers
from attrs import define, field

from atomr_trio.core import Internal
from atomr_trio.formats import HfFolder

from ._gguf_vocab import GgufVocab
from ._hf_tokenizer import bare_arguments, folder_arguments

__all__ = ["Tokenizer"]


@define(kw_only=True, eq=False)
class Tokenizer:
    """A BPE tokenizer. Safe to use from several threads. Build it with `from_gguf` or `from_folder`.

    Args:
        vocab_size: how many token ids there are.
        bos_id: the begin-of-sequence token, or ``None``.
        eos_ids: the tokens that end an answer.
        special_ids: control tokens: they have no text of their own.
        add_bos: a plain prompt begins with ``bos_id``.
        max_token_bytes: bytes of the longest token; text of n bytes has at least ``n / max_token_bytes`` tokens.
    """

    vocab_size: int
    bos_id: int | None
    eos_ids: frozenset[int]
    special_ids: frozenset[int] = field(repr=False)
    add_bos: bool
    max_token_bytes: int
    _bytes: Sequence[bytes] = field(repr=False, alias="bytes")
    _with_special: tokenizers.Tokenizer = field(repr=False, alias="with_special")
    _without_special: tokenizers.Tokenizer = field(repr=False, alias="without_special")

    @property
    def vocabulary(self) -> Sequence[bytes]:
        """The bytes of each token; for a control token, those of its name."""
        return self._bytes

    @classmethod
    def from_gguf(cls, fields: Mapping[str, Any]) -> Self:
        """Build the tokenizer from ``tokenizer.ggml.*``.

        Raises:
            ModelLoadError: a field is missing or does not fit the others, or the kind of tokenizer is not supported.
        """
        vocab = GgufVocab.read(fields)
        return cls(
            vocab_size=len(vocab.tokens),
            bos_id=vocab.bos_id,
            eos_ids=vocab.eos_ids,
            special_ids=vocab.special_ids,
            add_bos=vocab.add_bos,
            max_token_bytes=max(map(len, vocab.bytes)),
            bytes=vocab.bytes,
            with_special=vocab.backend(vocab.special_ids),
            without_special=vocab.backend(frozenset()),
        )

    @classmethod
    def from_folder(cls, folder: HfFolder) -> Self:
        """Read ``tokenizer.json``, with what ``tokenizer_config.json`` and the configurations say of its tokens.

        Raises:
            ModelLoadError: a file is missing or damaged, or the kind of tokenizer is not supported.
        """
        return cls(**folder_arguments(folder))

    @classmethod
    def bare(cls, vocab_size: int, eos_ids: Iterable[int] = ()) -> Self:
        """Make a tokenizer for random weights: a token per byte, the others are spelled by their numbers.

        Args:
            vocab_size: how many token ids there are; at least 256.
            eos_ids: the tokens that end an answer.

        Raises:
            ModelLoadError: the vocabulary has no room for the bytes.
        """
        return cls(**bare_arguments(vocab_size, eos_ids))

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = True) -> list[int]:
        """Return the token ids of ``text``.

        Bytes that the vocabulary does not know are left out, as the reference tokenizers do.

        Args:
            text: any valid Unicode text.
            add_special: put the begin-of-sequence token in front, if this model wants one there.
            parse_special: the names of control tokens in the text mean these tokens. Off, they are plain text.

        Raises:
            UnicodeEncodeError: the text holds half of a surrogate pair.
        """
        backend = self._with_special if parse_special else self._without_special
        try:
            # The batch form skips the character offsets, which nobody asks for: half as fast again.
            ids = backend.encode_batch_fast([text], add_special_tokens=False)[0].ids
        except TypeError:
            # What the library makes of a lone surrogate; this raises the real thing.
            text.encode()
            raise
        if add_special and self.add_bos and self.bos_id is not None:
            return [self.bos_id, *ids]
        return ids

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """Return the text of token ids; bytes that are not UTF-8 become U+FFFD.

        Raises:
            Internal: an id is outside the vocabulary.
        """
        skipped = self.special_ids if skip_special else frozenset[int]()
        return b"".join([self.token_bytes(id) for id in ids if id not in skipped]).decode(errors="replace")

    def token_bytes(self, id: int) -> bytes:
        """Return the bytes of one token; for a control token, those of its name.

        Raises:
            Internal: the id is outside the vocabulary.
        """
        if not 0 <= id < self.vocab_size:
            raise Internal(f"token id {id} is outside the vocabulary of {self.vocab_size}")
        return self._bytes[id]

    def token_name(self, id: int | None) -> str:
        """Return the spelling of a token, as chat templates want it; empty for ``None``."""
        return "" if id is None else self.token_bytes(id).decode(errors="replace")
