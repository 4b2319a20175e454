"""The models that `gpu.py` measures: their published shapes, and what a decode step of them has to read."""

import json
from pathlib import Path
from typing import Any

_LLAMA_3: dict[str, Any] = {
    "model_type": "llama",
    "hidden_act": "silu",
    "vocab_size": 128_256,
    "max_position_embeddings": 131_072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "bos_token_id": 128_000,
    "eos_token_id": 128_001,
}
_SCALING = {
    "rope_type": "llama3",
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
}

MODELS: dict[str, dict[str, Any]] = {
    "llama-3.2-1b": _LLAMA_3
    | {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "rope_scaling": {**_SCALING, "factor": 32.0},
        "tie_word_embeddings": True,
    },
    "llama-3.1-8b": _LLAMA_3
    | {
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "rope_scaling": {**_SCALING, "factor": 8.0},
        "tie_word_embeddings": False,
    },
    "tiny": _LLAMA_3
    | {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": True,
    },
}


def write_folder(name: str, folder: Path) -> str:
    """Write the model's `config.json`: all that an engine with random weights wants to know."""
    place = folder / name
    place.mkdir(exist_ok=True)
    (place / "config.json").write_text(json.dumps(MODELS[name]))
    return str(place)


def step_bytes(name: str, dtype: str, context_tokens: float) -> float:
    """Return what one decode step has to read: each weight once, and the keys and values of all contexts.

    Args:
        name: of the model.
        dtype: how its weights are held: float32, bfloat16, or int8 with a float32 scale per output channel.
        context_tokens: the lengths of all streams together.
    """
    model = MODELS[name]
    hidden, inner, layers = model["hidden_size"], model["intermediate_size"], model["num_hidden_layers"]
    narrow = model["num_key_value_heads"] * model["head_dim"]
    wide = model["num_attention_heads"] * model["head_dim"]
    shapes = [(wide + 2 * narrow, hidden), (hidden, wide), (2 * inner, hidden), (hidden, inner)] * layers
    # The embedding is looked up; as a whole it is read only where it is the output matrix.
    shapes.append((model["vocab_size"], hidden))
    size = {"float32": 4, "bfloat16": 2, "int8": 1}[dtype]
    weights = sum(rows * columns * size + (4 * rows if dtype == "int8" else 0) for rows, columns in shapes)
    cache_item = 4 if dtype == "float32" else 2
    return weights + context_tokens * 2 * layers * narrow * cache_item
