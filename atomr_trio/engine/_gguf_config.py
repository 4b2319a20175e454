"""Reads a model's configuration from GGUF metadata. Everything that is missing or absurd is named."""

import math
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from atomr_trio.core import ModelLoadError

SUPPORTED_ARCHITECTURES = ("llama",)


def config_arguments(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `ModelConfig` for a GGUF file's metadata.

    Raises:
        ModelLoadError: an unsupported architecture or feature, or a field that is missing or absurd.
    """
    meta = _Metadata(fields, _architecture(fields))
    _refuse_unsupported(meta)
    hidden, heads = meta.size("embedding_length"), meta.size("attention.head_count")
    return {
        "architecture": meta.architecture,
        "num_layers": meta.size("block_count"),
        "hidden_size": hidden,
        "intermediate_size": meta.size("feed_forward_length"),
        "num_heads": heads,
        "num_kv_heads": meta.size("attention.head_count_kv", heads),
        "head_dim": _head_dim(meta, hidden, heads),
        "vocab_size": meta.size("vocab_size", _num_tokens(fields)),
        "context_length": meta.size("context_length"),
        "rope_theta": meta.number("rope.freq_base", 10_000.0),
        "rope_scale": _rope_scale(meta),
        "rms_norm_eps": meta.number("attention.layer_norm_rms_epsilon"),
        "bos_token_id": meta.token("bos_token_id"),
        "eos_token_ids": _eos_tokens(meta),
    }


def _architecture(fields: Mapping[str, Any]) -> str:
    value = fields.get("general.architecture")
    if not isinstance(value, str):
        raise ModelLoadError("the file does not say its architecture (field `general.architecture`)")
    if value not in SUPPORTED_ARCHITECTURES:
        supported = ", ".join(SUPPORTED_ARCHITECTURES)
        raise ModelLoadError(f"architecture `{value}` is not supported (supported: {supported})")
    return value


@frozen
class _Metadata:
    """Typed access to the fields of one architecture."""

    fields: Mapping[str, Any]
    architecture: str

    def key(self, name: str) -> str:
        return f"{self.architecture}.{name}"

    def size(self, name: str, default: int | None = None) -> int:
        value = self._get(name, default)
        if type(value) is not int or value <= 0:
            raise ModelLoadError(f"field `{self.key(name)}` is {_shown(value)}, not a positive whole number")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._get(name, default)
        if type(value) not in (int, float) or not (math.isfinite(value) and value > 0):
            raise ModelLoadError(f"field `{self.key(name)}` is {_shown(value)}, not a positive number")
        return float(value)

    def token(self, name: str) -> int | None:
        value = self.fields.get(f"tokenizer.ggml.{name}")
        return value if type(value) is int else None

    def _get(self, name: str, default: float | None) -> Any:
        value = self.fields.get(self.key(name), default)
        if value is None:
            raise ModelLoadError(f"field `{self.key(name)}` is missing")
        return value


def _shown(value: Any) -> str:
    # A field of a foreign file may be a list of a million entries.
    return "a list" if isinstance(value, list) else repr(value)[:40]


def _refuse_unsupported(meta: _Metadata) -> None:
    if meta.fields.get(meta.key("expert_count")):
        raise ModelLoadError("mixture-of-experts models are not supported")


def _num_tokens(fields: Mapping[str, Any]) -> int | None:
    tokens = fields.get("tokenizer.ggml.tokens")
    return len(tokens) if isinstance(tokens, list) else None  # pyright: ignore[reportUnknownArgumentType]


def _head_dim(meta: _Metadata, hidden: int, heads: int) -> int:
    if hidden % heads and meta.key("attention.key_length") not in meta.fields:
        raise ModelLoadError(f"{heads} attention heads do not divide a width of {hidden}")
    size = meta.size("attention.key_length", hidden // heads)
    for other in ("attention.value_length", "rope.dimension_count"):
        if meta.size(other, size) != size:
            raise ModelLoadError(f"field `{meta.key(other)}` differs from the head size {size}: not supported")
    return size


def _rope_scale(meta: _Metadata) -> float:
    kind = meta.fields.get(meta.key("rope.scaling.type"), "none")
    if kind == "none":
        return 1.0
    if kind != "linear":
        raise ModelLoadError(f"rotary scaling `{_shown(kind)}` is not supported")
    return meta.number("rope.scaling.factor")


def _eos_tokens(meta: _Metadata) -> tuple[int, ...]:
    # End of sequence, of turn, of message: a chat model may emit any of them.
    found = (meta.token(name) for name in ("eos_token_id", "eot_token_id", "eom_token_id"))
    return tuple(dict.fromkeys(token for token in found if token is not None))
