"""Small random checkpoints of every family, in the layouts in which models are published."""

import json
import struct

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

SIZES = {
    "num_hidden_layers": 3,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 300,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 258,
    "eos_token_id": [259],
    "torch_dtype": "float32",
}

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}

CONFIGS = {
    "llama": {"model_type": "llama", "tie_word_embeddings": True},
    "llama3": {"model_type": "llama", "rope_scaling": LLAMA3, "attention_bias": True},
    "mistral": {"model_type": "mistral", "head_dim": 16, "sliding_window": 6},
    "qwen2": {"model_type": "qwen2", "head_dim": None, "rope_scaling": YARN, "sliding_window": 4},
    "qwen3": {"model_type": "qwen3", "head_dim": 12, "num_key_value_heads": 1, "tie_word_embeddings": True},
    "gemma2": {
        "model_type": "gemma2",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 20,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 3.0,
        "sliding_window": 6,
        "tie_word_embeddings": True,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 8,
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "sliding_window": 5,
        "sliding_window_pattern": 3,
        "tie_word_embeddings": True,
    },
}


def config_of(family, **changes):
    """The ``config.json`` of a small model."""
    return SIZES | CONFIGS[family] | changes


def head_dim(config):
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def shapes(config):
    """Shape of every tensor of a checkpoint, by its published name."""
    kind, hidden, inner, dim = (
        config["model_type"],
        config["hidden_size"],
        config["intermediate_size"],
        head_dim(config),
    )
    wide, narrow = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    layer = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (wide, hidden),
        "self_attn.k_proj.weight": (narrow, hidden),
        "self_attn.v_proj.weight": (narrow, hidden),
        "self_attn.o_proj.weight": (hidden, wide),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }
    if kind.startswith("gemma"):
        layer |= {"pre_feedforward_layernorm.weight": (hidden,), "post_feedforward_layernorm.weight": (hidden,)}
    if kind in ("qwen3", "gemma3_text"):
        layer |= {"self_attn.q_norm.weight": (dim,), "self_attn.k_norm.weight": (dim,)}
    if kind == "qwen2" or config.get("attention_bias"):
        layer |= {f"self_attn.{x}_proj.bias": (size,) for x, size in (("q", wide), ("k", narrow), ("v", narrow))}
    if config.get("attention_bias"):
        layer["self_attn.o_proj.bias"] = (hidden,)
    found = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    for index in range(config["num_hidden_layers"]):
        found |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = (config["vocab_size"], hidden)
    return found


def random_tensors(config, seed=0):
    """Weights whose tokens depend on the whole context, by their published names."""
    rng = np.random.default_rng(seed)
    from_one = config["model_type"].startswith("gemma")
    found = {}
    for name, shape in shapes(config).items():
        values = rng.standard_normal(shape, np.float32)
        if len(shape) == 2:
            values *= 1.5 / np.sqrt(np.float32(shape[1]))
        elif name.endswith("bias"):
            values *= 0.5
        else:
            values = values / 4 + np.float32(not from_one)
        found[name] = values.astype(np.float32)
    return found


def to_bfloat16(values):
    """The bits of the upper halves: numbers that are not bfloat16 already are cut."""
    return (np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def write_safetensors(path, tensors, kind="F32"):
    header, blobs, at = {}, [], 0
    for name, values in tensors.items():
        stored = {"F32": np.float32, "F16": np.float16, "F64": np.float64}
        blob = (to_bfloat16(values) if kind == "BF16" else values.astype(stored[kind])).tobytes()
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def write_folder(path, config, tensors, *, shards=1, kind="F32", generation=None):
    """A folder without a tokenizer."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (path / "generation_config.json").write_text(json.dumps(generation))
    if shards == 1:
        write_safetensors(path / "model.safetensors", tensors, kind)
        return path
    where = {name: f"model-{at % shards + 1:05}-of-{shards:05}.safetensors" for at, name in enumerate(tensors)}
    for file in sorted(set(where.values())):
        write_safetensors(path / file, {name: tensors[name] for name in tensors if where[name] == file}, kind)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return path


TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|bos|>", "<|eos|>", "<|user|>", "<|assistant|>"]


def write_tokenizer(path, *, template=TEMPLATE):
    """A byte-level tokenizer of 256 bytes, two merges and four control tokens; its begin is added by a template."""
    letters = {letter: at for at, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = tokenizers.Tokenizer(models.BPE({**letters, "he": 256, "hel": 257}, [("h", "e"), ("he", "l")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    data = json.loads(made.to_str())
    common = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    data["added_tokens"] = [{"id": 258 + at, "content": name, **common} for at, name in enumerate(SPECIAL)]
    data["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|bos|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|bos|>": {"id": "<|bos|>", "ids": [258], "tokens": ["<|bos|>"]}},
    }
    (path / "tokenizer.json").write_text(json.dumps(data))
    about = {"bos_token": {"content": "<|bos|>", "special": True}, "eos_token": "<|eos|>"}
    (path / "tokenizer_config.json").write_text(json.dumps(about))
    (path / "chat_template.jinja").write_text(template)
    return path
