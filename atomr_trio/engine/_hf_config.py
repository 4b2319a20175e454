"""Reads a model's configuration from a Hugging Face folder: today's spellings and the older ones."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from atomr_trio.core import ModelLoadError

from ._families import FAMILIES, Family, windows
from ._fields import Fields, shown
from ._hf_rope import rope_tables

_FAMILY_OF = {
    "llama": "llama",
    "mistral": "mistral",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
}
SUPPORTED_MODEL_TYPES = (*_FAMILY_OF, "gemma3")

# What the library's own configuration classes assume where a file is silent, beyond what `Family` knows.
_GEMMA_DEFAULTS: dict[str, Any] = {
    "head_dim": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048},
    "mistral": {"max_position_embeddings": 131_072},
    "qwen2": {"max_position_embeddings": 32_768},
    "qwen3": {"max_position_embeddings": 32_768, "head_dim": 128},
    "gemma2": _GEMMA_DEFAULTS
    | {"max_position_embeddings": 8192, "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0},
    "gemma3": _GEMMA_DEFAULTS | {"max_position_embeddings": 131_072, "vocab_size": 262_208},
}

_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu", "gelu_new": "gelu"}


def hf_config_arguments(config: Mapping[str, Any], generation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `ModelConfig`.

    Args:
        config: the content of ``config.json``.
        generation: of ``generation_config.json``, which wins where both speak.

    Raises:
        ModelLoadError: an unsupported architecture or feature, or a field that is missing or absurd.
    """
    kind, values = _text_part(config)
    fields, family = Fields(_DEFAULTS[kind] | _given(values)), FAMILIES[kind]
    _refuse_unsupported(fields)
    hidden, heads, layers = (fields.size(name) for name in ("hidden_size", "num_attention_heads", "num_hidden_layers"))
    rope, local_rope, context = rope_tables(fields, local=family.local_rope)
    return {
        "architecture": kind,
        "num_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": fields.size("intermediate_size"),
        "num_heads": heads,
        "num_kv_heads": fields.size("num_key_value_heads", heads),
        "head_dim": _head_dim(fields, hidden, heads),
        "vocab_size": fields.size("vocab_size"),
        "context_length": context,
        "rope": rope,
        "local_rope": local_rope,
        "windows": _windows(fields, kind, family, layers),
        "rms_norm_eps": fields.number("rms_norm_eps", 1e-6),
        **family.switches,
        **_biases(fields, kind),
        "activation": _activation(fields),
        "attention_scale": _attention_scale(fields),
        "attention_soft_cap": fields.optional_number("attn_logit_softcapping"),
        "final_soft_cap": fields.optional_number("final_logit_softcapping"),
        "tied_embeddings": fields.flag("tie_word_embeddings", default=False),
        "bos_token_id": _first(_tokens("bos_token_id", generation, config, values)),
        "eos_token_ids": _tokens("eos_token_id", generation, config, values),
    }


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    # `null` switches a soft-cap off; elsewhere it means that nothing is said.
    return {key: value for key, value in values.items() if value is not None or key.endswith("softcapping")}


def _text_part(config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    kind, values = config.get("model_type"), config
    if kind == "gemma3":
        # Its pictures are not served, its text is.
        values = config.get("text_config")
        if not isinstance(values, Mapping):
            raise ModelLoadError("field `text_config` is missing")
        kind = "gemma3_text"
    if not isinstance(kind, str):
        raise ModelLoadError("the folder does not say its architecture (field `model_type` of config.json)")
    if kind not in _FAMILY_OF:
        supported = ", ".join(SUPPORTED_MODEL_TYPES)
        raise ModelLoadError(f"architecture `{kind[:40]}` is not supported (supported: {supported})")
    return _FAMILY_OF[kind], cast("Mapping[str, Any]", values)


def _refuse_unsupported(fields: Fields) -> None:
    if fields.get("quantization_config") is not None:
        raise ModelLoadError("quantized checkpoints (field `quantization_config`) are not supported")
    if fields.flag("mlp_bias", default=False):
        raise ModelLoadError("biases in the feed-forward (field `mlp_bias`) are not supported")
    if fields.number("partial_rotary_factor", 1.0) != 1.0:
        raise ModelLoadError("heads that are rotated in part (field `partial_rotary_factor`) are not supported")
    if fields.flag("use_bidirectional_attention", default=False):
        raise ModelLoadError("attention in both directions is not supported")


def _head_dim(fields: Fields, hidden: int, heads: int) -> int:
    if fields.get("head_dim") is None and hidden % heads:
        raise ModelLoadError(f"{heads} attention heads do not divide a width of {hidden}")
    return fields.size("head_dim", hidden // heads)


def _biases(fields: Fields, kind: str) -> dict[str, bool]:
    if kind == "qwen2":
        return {}
    biased = fields.flag("attention_bias", default=False)
    return {"qkv_bias": biased, "out_bias": biased}


def _activation(fields: Fields) -> str:
    name = fields.get("hidden_activation", fields.get("hidden_act", "silu"))
    found = _ACTIVATIONS.get(name) if isinstance(name, str) else None
    if found is None:
        raise ModelLoadError(f"activation `{shown(name)}` is not supported (supported: {', '.join(_ACTIVATIONS)})")
    return found


def _attention_scale(fields: Fields) -> float | None:
    scalar = fields.optional_number("query_pre_attn_scalar")
    return None if scalar is None else scalar**-0.5


def _windows(fields: Fields, kind: str, family: Family, layers: int) -> tuple[int, ...]:
    if kind in ("qwen2", "qwen3") and not fields.flag("use_sliding_window", default=False):
        return ()
    if kind == "llama" or (fields.get("sliding_window") is None and family.window is None):
        return ()
    size = fields.size("sliding_window", family.window)
    kinds = fields.get("layer_types")
    if kinds is not None:
        return _by_type(kinds, size, layers)
    if kind in ("qwen2", "qwen3"):
        first = fields.get("max_window_layers", 28)
        if type(first) is not int:
            raise ModelLoadError(f"field `max_window_layers` is {shown(first)}, not a whole number")
        return tuple(size if layer >= first else 0 for layer in range(layers))
    pattern = fields.size("sliding_window_pattern") if fields.get("sliding_window_pattern") else family.window_pattern
    return windows(layers, size, pattern)


def _by_type(kinds: Any, size: int, layers: int) -> tuple[int, ...]:
    if not isinstance(kinds, list) or len(cast("list[Any]", kinds)) != layers:
        raise ModelLoadError(f"field `layer_types` does not name the kind of each of {layers} layers")
    sizes = {"sliding_attention": size, "full_attention": 0}
    found: list[int] = []
    for kind in cast("list[Any]", kinds):
        if not isinstance(kind, str) or kind not in sizes:
            raise ModelLoadError(f"layers of the kind {shown(kind)} (field `layer_types`) are not supported")
        found.append(sizes[kind])
    return tuple(found)


def _tokens(name: str, *sources: Mapping[str, Any]) -> tuple[int, ...]:
    """The token ids of the first source that gives any: one, or a list."""
    for source in sources:
        value = source.get(name)
        given = cast("list[Any]", value) if isinstance(value, list) else [value]
        ids = tuple(id for id in given if type(id) is int)
        if ids:
            return ids
    return ()


def _first(ids: Sequence[int]) -> int | None:
    return ids[0] if ids else None
