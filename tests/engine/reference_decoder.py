"""Every decoder that the engine knows, once more: plain numpy over published tensors, no cache, no pages, no batch.

Written from the table of the families' switches, not from the engine. One loop per head, float64 inside.
"""

import math

import numpy as np


def inverse_frequencies(dim, theta, scaling, context):
    """Rotation per position of each pair, and the factor on cosine and sine."""
    plain = [theta ** (-2 * pair / dim) for pair in range(dim // 2)]
    if not scaling:
        return plain, 1.0
    kind, factor = scaling.get("rope_type", scaling.get("type")), scaling["factor"]
    before = scaling.get("original_max_position_embeddings", context)
    if kind == "linear":
        return [f / factor for f in plain], 1.0
    if kind == "llama3":
        return [_llama3(f, scaling, before) for f in plain], 1.0
    assert kind == "yarn"

    def pair_with_turns(turns):
        return dim * math.log(before / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(pair_with_turns(scaling.get("beta_fast", 32))), 0)
    high = min(math.ceil(pair_with_turns(scaling.get("beta_slow", 1))), dim - 1)
    ramps = [min(max((pair - low) / ((high - low) or 0.001), 0), 1) for pair in range(dim // 2)]
    mixed = [f / factor * ramp + f * (1 - ramp) for f, ramp in zip(plain, ramps, strict=True)]
    return mixed, scaling.get("attention_factor", 0.1 * math.log(factor) + 1)


def _llama3(frequency, scaling, before):
    wave = 2 * math.pi / frequency
    if wave < before / scaling["high_freq_factor"]:
        return frequency
    if wave > before / scaling["low_freq_factor"]:
        return frequency / scaling["factor"]
    smooth = before / wave - scaling["low_freq_factor"]
    smooth /= scaling["high_freq_factor"] - scaling["low_freq_factor"]
    return (1 - smooth) * frequency / scaling["factor"] + smooth * frequency


def _windowed(config, layer):
    kind = config["model_type"]
    if config.get("layer_types"):
        return config["layer_types"][layer] == "sliding_attention"
    if kind == "mistral":
        return config.get("sliding_window") is not None
    if kind == "gemma2":
        return layer % 2 == 0
    if kind == "gemma3_text":
        return (layer + 1) % config["sliding_window_pattern"] != 0
    return bool(config.get("use_sliding_window")) and layer >= config["max_window_layers"]


def capped(x, limit):
    return limit * np.tanh(x / limit) if limit else x


def reference_hidden(config, tensors, tokens):
    """Return ``[len(tokens), hidden]``, after the last norm, of a ``config.json`` and its tensors by their names."""
    kind, eps = config["model_type"], config["rms_norm_eps"]
    gemma = kind.startswith("gemma")
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    dim = config.get("head_dim") or config["hidden_size"] // heads
    count = len(tokens)

    def get(name):
        return tensors[name].astype(np.float64)

    def norm(x, name):
        weight = get(name) + (1 if gemma else 0)
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight

    def product(x, name):
        y = x @ get(name + ".weight").T
        return y + get(name + ".bias") if name + ".bias" in tensors else y

    tables = {}
    for local in (False, True):
        theta, scaling = config["rope_theta"], config.get("rope_scaling")
        if local and kind == "gemma3_text":
            theta, scaling = config["rope_local_base_freq"], None
        tables[local] = inverse_frequencies(dim, theta, scaling, config["max_position_embeddings"])

    def rotate(x, local):
        frequencies, factor = tables[local]
        out = np.empty_like(x)
        for pair, frequency in enumerate(frequencies):
            angle = np.arange(count) * frequency
            a, b = x[:, pair], x[:, pair + dim // 2]
            out[:, pair] = factor * (a * np.cos(angle) - b * np.sin(angle))
            out[:, pair + dim // 2] = factor * (b * np.cos(angle) + a * np.sin(angle))
        return out

    def attention(x, at, local):
        q, k, v = (product(x, f"{at}.self_attn.{name}_proj") for name in "qkv")
        mixed = np.empty((count, heads * dim))
        for head in range(heads):
            group = head // (heads // kv_heads)
            mine, theirs = slice(head * dim, (head + 1) * dim), slice(group * dim, (group + 1) * dim)
            query, key = q[:, mine], k[:, theirs]
            if kind in ("qwen3", "gemma3_text"):
                query, key = norm(query, f"{at}.self_attn.q_norm.weight"), norm(key, f"{at}.self_attn.k_norm.weight")
            scores = rotate(query, local) @ rotate(key, local).T
            scores *= config["query_pre_attn_scalar"] ** -0.5 if gemma else dim**-0.5
            scores = capped(scores, config.get("attn_logit_softcapping"))
            for i in range(count):
                for j in range(count):
                    if j > i or (local and i - j >= config["sliding_window"]):
                        scores[i, j] = -np.inf
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            mixed[:, mine] = weights / weights.sum(axis=1, keepdims=True) @ v[:, theirs]
        return product(mixed, f"{at}.self_attn.o_proj")

    def feed_forward(x, at):
        gate, up = product(x, f"{at}.mlp.gate_proj"), product(x, f"{at}.mlp.up_proj")
        if gemma:
            bent = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
        else:
            bent = gate / (1 + np.exp(-gate))
        return product(bent * up, f"{at}.mlp.down_proj")

    x = get("model.embed_tokens.weight")[list(tokens)]
    if gemma:
        x = x * np.float32(config["hidden_size"] ** 0.5)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        attended = attention(norm(x, f"{at}.input_layernorm.weight"), at, _windowed(config, layer))
        if gemma:
            x = x + norm(attended, f"{at}.post_attention_layernorm.weight")
            fed = feed_forward(norm(x, f"{at}.pre_feedforward_layernorm.weight"), at)
            x = x + norm(fed, f"{at}.post_feedforward_layernorm.weight")
        else:
            x = x + attended
            x = x + feed_forward(norm(x, f"{at}.post_attention_layernorm.weight"), at)
    return norm(x, "model.norm.weight")


def reference_logits(config, tensors, tokens):
    """Return ``[len(tokens), vocab]``."""
    output = "model.embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight"
    raw = reference_hidden(config, tensors, tokens) @ tensors[output].astype(np.float64).T
    return capped(raw, config.get("final_logit_softcapping"))


def reference_logprobs(config, tensors, tokens):
    """The same as log probabilities of the token after each."""
    raw = reference_logits(config, tensors, tokens)
    shifted = raw - raw.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
