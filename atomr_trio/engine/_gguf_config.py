"""Reads a model's configuration from GGUF metadata. Everything that is missing or absurd is named."""

import math
from collections.abc import Mapping
from typing import Any, cast

from atomr_trio.core import ModelLoadError

from ._families import FAMILIES, Family, windows
from ._fields import Fields, shown
from .rope_scaling import LinearScaling, RopeScaling, RopeTable, YarnScaling

SUPPORTED_ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3")

_LOCAL_THETA = 10_000.0
"""Of Gemma 3's windowed layers. Older files do not say it."""

# The largest Gemmas, known by their depth, scale attention by the width per head instead of the head's own.
_WIDTH_SCALED = {"gemma2": 46, "gemma3": 62}


def config_arguments(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `ModelConfig` for a GGUF file's metadata.

    Raises:
        ModelLoadError: an unsupported architecture or feature, or a field that is missing or absurd.
    """
    architecture = _architecture(fields)
    meta, tokens = Fields(fields, f"{architecture}."), Fields(fields, "tokenizer.ggml.")
    family = FAMILIES[architecture]
    _refuse_unsupported(meta)
    hidden, heads, layers = meta.size("embedding_length"), meta.size("attention.head_count"), meta.size("block_count")
    return {
        "architecture": architecture,
        "num_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": meta.size("feed_forward_length"),
        "num_heads": heads,
        "num_kv_heads": meta.size("attention.head_count_kv", heads),
        "head_dim": _head_dim(meta, hidden, heads),
        "vocab_size": meta.size("vocab_size", _num_tokens(fields)),
        "context_length": meta.size("context_length"),
        "rope": RopeTable(theta=_theta(meta, "rope.freq_base", 10_000.0), scaling=_scaling(meta)),
        "local_rope": _local_rope(meta, family),
        "windows": _windows(meta, family, layers),
        "rms_norm_eps": meta.number("attention.layer_norm_rms_epsilon"),
        **family.switches,
        "attention_scale": (hidden / heads) ** -0.5 if _WIDTH_SCALED.get(architecture) == layers else None,
        "attention_soft_cap": _soft_cap(meta, family, "attn_logit_softcapping", 50.0),
        "final_soft_cap": _soft_cap(meta, family, "final_logit_softcapping", 30.0),
        "bos_token_id": _token(tokens, "bos_token_id"),
        "eos_token_ids": _eos_tokens(tokens),
    }


def _architecture(fields: Mapping[str, Any]) -> str:
    value = fields.get("general.architecture")
    if not isinstance(value, str):
        raise ModelLoadError("the file does not say its architecture (field `general.architecture`)")
    if value not in SUPPORTED_ARCHITECTURES:
        supported = ", ".join(SUPPORTED_ARCHITECTURES)
        raise ModelLoadError(f"architecture `{value[:40]}` is not supported (supported: {supported})")
    return value


def _token(tokens: Fields, name: str) -> int | None:
    value = tokens.get(name)
    return value if type(value) is int else None


def _refuse_unsupported(meta: Fields) -> None:
    if meta.get("expert_count"):
        raise ModelLoadError("mixture-of-experts models are not supported")


def _num_tokens(fields: Mapping[str, Any]) -> int | None:
    tokens = fields.get("tokenizer.ggml.tokens")
    return len(tokens) if isinstance(tokens, list) else None  # pyright: ignore[reportUnknownArgumentType]


def _head_dim(meta: Fields, hidden: int, heads: int) -> int:
    if hidden % heads and meta.get("attention.key_length") is None:
        raise ModelLoadError(f"{heads} attention heads do not divide a width of {hidden}")
    size = meta.size("attention.key_length", hidden // heads)
    for other in ("attention.value_length", "rope.dimension_count"):
        if meta.size(other, size) != size:
            raise ModelLoadError(f"field `{meta.key(other)}` differs from the head size {size}: not supported")
    return size


def _theta(meta: Fields, name: str, default: float) -> float:
    theta = meta.number(name, default)
    if theta <= 1:
        raise ModelLoadError(f"field `{meta.key(name)}` is {theta!r}, not above 1")
    return theta


def _scaling(meta: Fields) -> RopeScaling | None:
    match meta.get("rope.scaling.type", "none"):
        case "none":
            return None
        case "linear":
            return LinearScaling(factor=meta.number("rope.scaling.factor"))
        case "yarn":
            return _yarn(meta)
        case other:
            raise ModelLoadError(f"rotary scaling `{shown(other)}` is not supported")


def _yarn(meta: Fields) -> YarnScaling:
    factor = meta.number("rope.scaling.factor")
    # What the file gives is on top of yarn's own factor.
    amplitude = meta.number("rope.scaling.attn_factor", 1.0) * (1 + 0.1 * math.log(max(factor, 1.0)))
    return YarnScaling(
        factor=factor,
        original_context=meta.size("rope.scaling.original_context_length", meta.size("context_length")),
        beta_fast=meta.number("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=meta.number("rope.scaling.yarn_beta_slow", 1.0),
        attention_factor=amplitude,
    )


def _local_rope(meta: Fields, family: Family) -> RopeTable | None:
    return RopeTable(theta=_theta(meta, "rope.freq_base_swa", _LOCAL_THETA)) if family.local_rope else None


def _windows(meta: Fields, family: Family, layers: int) -> tuple[int, ...]:
    if meta.get("attention.sliding_window") is None and family.window is None:
        return ()
    pattern = meta.get("attention.sliding_window_pattern", family.window_pattern)
    size = meta.size("attention.sliding_window", family.window)
    if type(pattern) is int and pattern >= 0:
        return windows(layers, size, pattern)
    if type(pattern) is not list or len(cast("list[Any]", pattern)) != layers:
        raise ModelLoadError(f"field `{meta.key('attention.sliding_window_pattern')}` does not fit {layers} layers")
    return tuple(size if windowed else 0 for windowed in cast("list[Any]", pattern))


def _soft_cap(meta: Fields, family: Family, name: str, default: float) -> float | None:
    if not family.soft_caps:
        return meta.optional_number(name)
    return meta.number(name, default)


def _eos_tokens(tokens: Fields) -> tuple[int, ...]:
    # End of sequence, of turn, of message: a chat model may emit any of them.
    found = (_token(tokens, name) for name in ("eos_token_id", "eot_token_id", "eom_token_id"))
    return tuple(dict.fromkeys(token for token in found if token is not None))
