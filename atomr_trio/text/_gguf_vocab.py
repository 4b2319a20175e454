"""The tokenizer fields of a GGUF file, and the two kinds of tokenizers that are rebuilt from them."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Self

import tokenizers
from attrs import define
from tokenizers import AddedToken, models

from atomr_trio.core import ModelLoadError

from ._bytelevel import to_bytes
from ._pretokenizers import family_of, pre_tokenizer
from ._sentencepiece import merges_of, normalizer, piece_bytes

__all__ = ["TURN_ENDS", "GgufVocab"]


TURN_ENDS = {"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<|end_of_turn|>", "<end_of_turn>"}
"""Control tokens that end a turn by their name: older files name only the end of a whole text."""


class TokenType(enum.IntEnum):
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@define(kw_only=True)
class GgufVocab:
    """The fields of a file, checked against each other.

    Args:
        tokens: spellings, by id.
        model: merges them.
        splitter: what the text goes through before it is merged.
        bos_id: the begin-of-sequence token, or ``None``.
        eos_ids: the tokens that end an answer.
        add_bos: a plain prompt begins with ``bos_id``.
        special_ids: control tokens.
        user_ids: tokens that are found in any text before it is split.
        bytes: what each token stands for.
    """

    tokens: Sequence[str]
    model: models.BPE
    splitter: Mapping[str, Any]
    bos_id: int | None
    eos_ids: frozenset[int]
    add_bos: bool
    special_ids: frozenset[int]
    user_ids: frozenset[int]
    bytes: Sequence[bytes]

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Self:
        """Read ``tokenizer.ggml.*``.

        Raises:
            ModelLoadError: a field is missing or does not fit the others, or the kind of tokenizer is not supported.
        """
        kind = fields.get("tokenizer.ggml.model")
        if kind not in ("gpt2", "llama"):
            known = "byte-level BPE (`gpt2`) and SentencePiece's (`llama`)"
            raise ModelLoadError(f"tokenizers of kind `{kind}` are not supported, only {known}")
        tokens = _strings(fields, "tokens")
        if not tokens:
            raise ModelLoadError("the tokenizer has no tokens")
        types = _types(fields, len(tokens))
        special = _of_type(types, TokenType.CONTROL, TokenType.UNKNOWN)
        user = _of_type(types, TokenType.USER_DEFINED)
        eos = {_id(fields, name, len(tokens)) for name in ("eos_token_id", "eot_token_id", "eom_token_id")}
        turn_ends = {id for id in special if tokens[id] in TURN_ENDS}
        return cls(
            tokens=tokens,
            bos_id=_id(fields, "bos_token_id", len(tokens)),
            eos_ids=frozenset((eos - {None}) | turn_ends),  # pyright: ignore[reportArgumentType]
            special_ids=special,
            user_ids=user,
            **(_byte_level if kind == "gpt2" else _sentencepiece)(fields, tokens, types, special | user),
        )

    def backend(self, special: frozenset[int]) -> tokenizers.Tokenizer:
        """Return a tokenizer that finds these control tokens by their names."""
        made = tokenizers.Tokenizer(self.model)
        for part, value in self.splitter.items():
            setattr(made, part, value)
        made.add_tokens([self._added(id, special=False) for id in sorted(self.user_ids)])
        made.add_special_tokens([self._added(id, special=True) for id in sorted(special)])
        return made

    def _added(self, id: int, *, special: bool) -> AddedToken:
        return AddedToken(self.tokens[id], special=special, normalized=False)


def _byte_level(
    fields: Mapping[str, Any], tokens: Sequence[str], _types: Sequence[int], verbatim: frozenset[int]
) -> dict[str, Any]:
    family = family_of(str(fields.get("tokenizer.ggml.pre", "default")))
    pairs = [_pair(merge) for merge in _strings(fields, "merges")]
    return {
        "model": _bpe(tokens, pairs, ignore_merges=family.whole_words),
        "splitter": {"pre_tokenizer": pre_tokenizer(family)},
        "add_bos": bool(fields.get("tokenizer.ggml.add_bos_token", family.adds_bos)),
        # Added tokens are spelled as they are, the others in the byte alphabet.
        "bytes": [token.encode() if id in verbatim else to_bytes(token) for id, token in enumerate(tokens)],
    }


def _sentencepiece(
    fields: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int], verbatim: frozenset[int]
) -> dict[str, Any]:
    scores = fields.get("tokenizer.ggml.scores")
    if not isinstance(scores, Sequence) or len(scores) != len(tokens):
        raise ModelLoadError(f"the field tokenizer.ggml.scores does not fit the {len(tokens)} tokens")
    pieces = {token: scores[id] for id, token in enumerate(tokens) if types[id] == TokenType.NORMAL}
    unknown = _id(fields, "unknown_token_id", len(tokens))
    spelled = tokens[unknown] if unknown is not None else None
    return {
        "model": _bpe(tokens, merges_of(pieces), byte_fallback=True, fuse_unk=True, unk_token=spelled),
        "splitter": {"normalizer": normalizer(prefix=bool(fields.get("tokenizer.ggml.add_space_prefix", True)))},
        "add_bos": bool(fields.get("tokenizer.ggml.add_bos_token", True)),
        "bytes": [token.encode() if id in verbatim else piece_bytes(token) for id, token in enumerate(tokens)],
    }


def _bpe(tokens: Sequence[str], pairs: list[tuple[str, str]], **options: Any) -> models.BPE:
    # A token spelled twice keeps its first id.
    ids = {token: at for at, token in reversed([*enumerate(tokens)])}
    try:
        return models.BPE(ids, pairs, **options)
    except Exception as error:
        raise ModelLoadError(f"the tokenizer's merges do not fit its tokens: {error}") from error


def _types(fields: Mapping[str, Any], count: int) -> Sequence[int]:
    types = fields.get("tokenizer.ggml.token_type", [TokenType.NORMAL] * count)
    if not isinstance(types, Sequence) or len(types) != count:
        raise ModelLoadError(f"the field tokenizer.ggml.token_type does not fit the {count} tokens")
    return types


def _of_type(types: Sequence[int], *wanted: TokenType) -> frozenset[int]:
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
