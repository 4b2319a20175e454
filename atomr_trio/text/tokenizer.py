"""Text to token ids and back, rebuilt from the fields of a GGUF file."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import enum
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import tokenizers
from attrs import define, field
from tokenizers import AddedToken, models

from atomr_trio.core import Internal, ModelLoadError

from ._bytelevel import to_bytes
from ._pretokenizers import Family, family_of, pre_tokenizer

__all__ = ["Tokenizer"]


_TURN_ENDS = {"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|end_of_turn|>", "<end_of_turn>"}
"""Control tokens that end a turn by their name: older files name only the end of a whole text."""


class _TokenType(enum.IntEnum):
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4


@define(kw_only=True, eq=False)
class Tokenizer:
    """A byte-level BPE tokenizer. Safe to use from several threads. Build it with `from_gguf`.

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

    @classmethod
    def from_gguf(cls, fields: Mapping[str, Any]) -> Self:
        """Build the tokenizer from ``tokenizer.ggml.*``.

        Raises:
            ModelLoadError: a field is missing or does not fit the others, or the kind of tokenizer is not supported.
        """
        vocab = _Vocab.read(fields)
        model = vocab.bpe()
        spelled = vocab.token_bytes()
        return cls(
            vocab_size=len(vocab.tokens),
            bos_id=vocab.bos_id,
            eos_ids=vocab.eos_ids,
            special_ids=vocab.special_ids,
            add_bos=vocab.add_bos,
            max_token_bytes=max(map(len, spelled)),
            bytes=spelled,
            with_special=vocab.backend(model, vocab.special_ids),
            without_special=vocab.backend(model, frozenset()),
        )

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


@define(kw_only=True)
class _Vocab:
    """The fields of a file, checked against each other."""

    tokens: Sequence[str]
    merges: Sequence[str]
    family: Family
    bos_id: int | None
    eos_ids: frozenset[int]
    add_bos: bool
    special_ids: frozenset[int]
    user_ids: frozenset[int]

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Self:
        kind = fields.get("tokenizer.ggml.model")
        if kind != "gpt2":
            raise ModelLoadError(f"tokenizers of kind `{kind}` are not supported, only byte-level BPE (`gpt2`)")
        tokens = _strings(fields, "tokens")
        if not tokens:
            raise ModelLoadError("the tokenizer has no tokens")
        types = _types(fields, len(tokens))
        special = _of_type(types, _TokenType.CONTROL, _TokenType.UNKNOWN)
        family = family_of(str(fields.get("tokenizer.ggml.pre", "default")))
        eos = {_id(fields, name, len(tokens)) for name in ("eos_token_id", "eot_token_id", "eom_token_id")}
        turn_ends = {id for id in special if tokens[id] in _TURN_ENDS}
        return cls(
            tokens=tokens,
            merges=_strings(fields, "merges"),
            family=family,
            bos_id=_id(fields, "bos_token_id", len(tokens)),
            eos_ids=frozenset((eos - {None}) | turn_ends),  # pyright: ignore[reportArgumentType]
            add_bos=bool(fields.get("tokenizer.ggml.add_bos_token", family.adds_bos)),
            special_ids=special,
            user_ids=_of_type(types, _TokenType.USER_DEFINED),
        )

    def token_bytes(self) -> list[bytes]:
        """The bytes of each token: added tokens are spelled as they are, the others in the byte alphabet."""
        verbatim = self.special_ids | self.user_ids
        return [token.encode() if id in verbatim else to_bytes(token) for id, token in enumerate(self.tokens)]

    def bpe(self) -> models.BPE:
        # A token spelled twice keeps its first id.
        ids = {token: at for at, token in reversed([*enumerate(self.tokens)])}
        pairs = [_pair(merge) for merge in self.merges]
        try:
            return models.BPE(ids, pairs, ignore_merges=self.family.whole_words)
        except Exception as error:
            raise ModelLoadError(f"the tokenizer's merges do not fit its tokens: {error}") from error

    def backend(self, model: models.BPE, special: frozenset[int]) -> tokenizers.Tokenizer:
        made = tokenizers.Tokenizer(model)
        made.pre_tokenizer = pre_tokenizer(self.family)  # pyright: ignore[reportAttributeAccessIssue]
        made.add_tokens([self._added(id, special=False) for id in sorted(self.user_ids)])
        made.add_special_tokens([self._added(id, special=True) for id in sorted(special)])
        return made

    def _added(self, id: int, *, special: bool) -> AddedToken:
        return AddedToken(self.tokens[id], special=special, normalized=False)


def _types(fields: Mapping[str, Any], count: int) -> Sequence[int]:
    types = fields.get("tokenizer.ggml.token_type", [_TokenType.NORMAL] * count)
    if not isinstance(types, Sequence) or len(types) != count:
        raise ModelLoadError(f"the field tokenizer.ggml.token_type does not fit the {count} tokens")
    return types


def _of_type(types: Sequence[int], *wanted: _TokenType) -> frozenset[int]:
    return frozenset(at for at, type_ in enumerate(types) if type_ in wanted)


def _pair(merge: str) -> tuple[str, str]:
    left, space, right = merge.partition(" ")
    if not (left and space and right):
        raise ModelLoadError(f"the tokenizer has a malformed merge: {merge!r}")
    return left, right


def _strings(fields: Mapping[str, Any], name: str) -> Sequence[str]:
    value = fields.get(f"tokenizer.ggml.{name}")
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(item, str) for item in value):
        raise ModelLoadError(f"the field tokenizer.ggml.{name} is missing or is not a list of strings")
    return value


def _id(fields: Mapping[str, Any], name: str, vocab_size: int) -> int | None:
    value = fields.get(f"tokenizer.ggml.{name}")
    if value is None:
        return None
    if not isinstance(value, int) or not 0 <= value < vocab_size:
        raise ModelLoadError(f"the field tokenizer.ggml.{name} is {value}, outside the vocabulary of {vocab_size}")
    return value
