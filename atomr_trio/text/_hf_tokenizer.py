"""Reads the tokenizer of a Hugging Face folder."""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import tokenizers
from tokenizers import models

from atomr_trio.core import ModelLoadError
from atomr_trio.formats import HfFolder

from ._bytelevel import to_bytes, to_spelling
from ._gguf_vocab import TURN_ENDS
from ._pretokenizers import family_of, pre_tokenizer
from ._sentencepiece import piece_bytes

__all__ = ["bare_arguments", "folder_arguments", "token_text"]


def folder_arguments(folder: HfFolder) -> dict[str, Any]:
    """Return the arguments of `Tokenizer` for a folder.

    Raises:
        ModelLoadError: a file is missing or damaged, or the kind of tokenizer is not supported.
    """
    data, about = folder.tokenizer, folder.tokenizer_config
    backend, plain = _backend(data), _backend(data)
    plain.encode_special_tokens = True
    added = backend.get_added_tokens_decoder()
    _check_added(data, backend)
    spelled = _spelled(backend, data, frozenset(added), _vocab_size(folder))
    special = frozenset(id for id, token in added.items() if token.special)
    adds, bos_id = _bos(backend, about)
    return {
        "vocab_size": len(spelled),
        "bos_id": bos_id,
        "eos_ids": frozenset(_eos_ids(folder, backend)) | _turn_ends(backend, special),
        "special_ids": special,
        "add_bos": adds,
        "max_token_bytes": max(map(len, spelled)),
        "bytes": spelled,
        "with_special": backend,
        "without_special": plain,
    }


def token_text(about: Mapping[str, Any], name: str) -> str:
    """Return a token's spelling as ``tokenizer_config.json`` gives it, by itself or with its properties."""
    value = about.get(name)
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _backend(data: Mapping[str, Any]) -> tokenizers.Tokenizer:
    try:
        made = tokenizers.Tokenizer.from_str(json.dumps(data))
    except Exception as error:
        raise ModelLoadError(f"`tokenizer.json` is not understood: {error}") from None
    made.no_truncation()
    made.no_padding()
    return made


def _check_added(data: Mapping[str, Any], backend: tokenizers.Tokenizer) -> None:
    # The library numbers added tokens itself, whatever the file says.
    for token in data.get("added_tokens") or ():
        if backend.token_to_id(token["content"]) != token["id"]:
            raise ModelLoadError(f"`tokenizer.json` gives the added token {token['content']!r} a number out of order")


def _vocab_size(folder: HfFolder) -> int:
    # A model may have more rows than its tokenizer has tokens, and draw one of them.
    config = folder.config
    text = config.get("text_config")
    size = config.get("vocab_size", text.get("vocab_size") if isinstance(text, Mapping) else None)
    return size if type(size) is int else 0


def _spelled(
    backend: tokenizers.Tokenizer, data: Mapping[str, Any], verbatim: frozenset[int], at_least: int
) -> list[bytes]:
    vocab = backend.get_vocab(with_added_tokens=True)
    if not vocab:
        raise ModelLoadError("the tokenizer has no tokens")
    to_text = _spelling(data)
    spelled = [b""] * max(at_least, 1 + max(vocab.values()))
    for token, id in vocab.items():
        spelled[id] = token.encode() if id in verbatim else to_text(token)
    return spelled


def _spelling(data: Mapping[str, Any]) -> Callable[[str], bytes]:
    kinds = {*_kinds(data.get("decoder")), *_kinds(data.get("pre_tokenizer"))}
    if "ByteLevel" in kinds:
        return to_bytes
    if kinds & {"ByteFallback", "Metaspace"}:
        return piece_bytes
    raise ModelLoadError("`tokenizer.json` is neither byte-level nor of SentencePiece's kind: not supported")


def _kinds(part: Any) -> Iterator[str]:
    """The types of a part of ``tokenizer.json``, of its own parts too."""
    if isinstance(part, Mapping):
        yield str(part.get("type"))
        for name in ("decoders", "pretokenizers"):
            for inner in part.get(name) or ():
                yield from _kinds(inner)


def _bos(backend: tokenizers.Tokenizer, about: Mapping[str, Any]) -> tuple[bool, int | None]:
    """Whether a plain prompt begins with a token of its own, and that token."""
    begun = backend.encode("a", add_special_tokens=True).ids
    plain = backend.encode("a", add_special_tokens=False).ids
    named = backend.token_to_id(token_text(about, "bos_token"))
    first = begun[0] if begun[:1] != plain[:1] else None
    adds = about.get("add_bos_token")
    if isinstance(adds, bool):
        return adds and (named is not None or first is not None), first if named is None else named
    return first is not None, named if first is None else first


def _eos_ids(folder: HfFolder, backend: tokenizers.Tokenizer) -> list[int]:
    for source in (folder.generation, folder.config):
        value = source.get("eos_token_id")
        ids = [id for id in (value if isinstance(value, list) else [value]) if type(id) is int]
        if ids:
            return ids
    named = backend.token_to_id(token_text(folder.tokenizer_config, "eos_token"))
    return [] if named is None else [named]


def _turn_ends(backend: tokenizers.Tokenizer, special: frozenset[int]) -> frozenset[int]:
    return frozenset(id for id in map(backend.token_to_id, TURN_ENDS) if id in special)


def bare_arguments(vocab_size: int, eos_ids: Iterable[int]) -> dict[str, Any]:
    """Return the arguments of `Tokenizer` for one that knows bytes alone.

    Raises:
        ModelLoadError: the vocabulary has no room for the bytes.
    """
    if vocab_size < 256:
        raise ModelLoadError(f"a vocabulary of {vocab_size} has no room for bytes")
    backend = tokenizers.Tokenizer(models.BPE({to_spelling(byte): byte for byte in range(256)}, []))
    backend.pre_tokenizer = pre_tokenizer(family_of("gpt2"))
    spelled = [bytes([id]) if id < 256 else f" {id}".encode() for id in range(vocab_size)]
    return {
        "vocab_size": vocab_size,
        "bos_id": None,
        "eos_ids": frozenset(eos_ids),
        "special_ids": frozenset[int](),
        "add_bos": False,
        # Text is never made of the numbers.
        "max_token_bytes": 1,
        "bytes": spelled,
        "with_special": backend,
        "without_special": backend,
    }
