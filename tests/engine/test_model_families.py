"""Every family of decoders through the whole engine (pages, chunks, batches) equals an independent plain one."""

from functools import partial

import gguf
import jax
import numpy as np
import pytest
from attrs import evolve
from engine_kit import request
from reference_decoder import reference_logits, reference_logprobs

from atomr_trio.engine.config import ModelConfig
from atomr_trio.engine.engine import Engine
from atomr_trio.engine.settings import EngineSettings
from atomr_trio.engine.weights import load_gguf_params, load_hf_params
from atomr_trio.formats import GgufFile, HfFolder
from tests.checkpoints import CONFIGS, config_of, random_tensors, write_folder

PROMPTS = ([5], [7, 9, 250, 31, 99, 3, 28], [(37 * at + 11) % 300 for at in range(39)])
CLOSE = 1e-3


def run(model, programs_dir, prompts=PROMPTS, count=10):
    """Greedy answers of all prompts at once: per prompt its log probabilities, its tokens, and theirs."""
    settings = EngineSettings(
        model=str(model),
        dtype="float32",
        max_num_seqs=2,
        max_model_len=64,
        page_size=8,
        kv_tokens=256,
        prefill_chunk=16,
        prefill_chunk_busy=16,
        cache_dir=programs_dir,
    )
    engine, found = Engine(settings), {}
    engine.load()
    try:
        for number, prompt in enumerate(prompts):
            engine.add(request(number, prompt, count, logprobs=True, prompt_logprobs=True))
        while not engine.idle:
            for output in engine.step().outputs:
                scores, tokens, logprobs = found.setdefault(output.id, ([], [], []))
                scores.extend(output.prompt_logprobs or [])
                tokens.extend(output.token_ids)
                logprobs.extend(output.logprobs)
    finally:
        engine.close()
    return [found[number] for number in range(len(prompts))]


def check(config, tensors, found, prompts=PROMPTS):
    for prompt, (scores, tokens, logprobs) in zip(prompts, found, strict=True):
        text = [*prompt, *tokens]
        expected = reference_logprobs(config, tensors, text)
        first = len(prompt) - 1
        wanted = [expected[at, text[at + 1]] for at in range(first)]
        np.testing.assert_allclose([score for score in scores if score is not None], wanted, atol=CLOSE)
        np.testing.assert_allclose(
            logprobs, [expected[at, text[at + 1]] for at in range(first, len(text) - 1)], atol=CLOSE
        )
        best = expected[first:-1].max(axis=1)
        np.testing.assert_allclose(logprobs, best, atol=CLOSE)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_folder_of_each_family_equals_the_reference(tmp_path, programs_dir, family):
    config = config_of(family)
    tensors = random_tensors(config)
    check(config, tensors, run(write_folder(tmp_path / "model", config, tensors), programs_dir))


def test_the_reference_notices_every_switch():
    """Turn each off: tokens far apart, so that the tests above mean something."""
    tokens = PROMPTS[2]
    for family, switched in {
        "llama3": {"rope_scaling": None},
        "mistral": {"sliding_window": None},
        "qwen2": {"rope_scaling": None},
        "gemma2": {"attn_logit_softcapping": None},
        "gemma3": {"rope_local_base_freq": 1e6},
    }.items():
        config = config_of(family)
        tensors = random_tensors(config)
        with_it, without = (reference_logits(c, tensors, tokens) for c in (config, config | switched))
        assert np.abs(with_it - without).max() > 0.05, family


# --- the same models as GGUF ---

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name, *, gemma):
    names = {"post_attention_layernorm": "post_attention_norm" if gemma else "ffn_norm"}
    names |= {"pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm", **NAMES}
    stem, _, kind = name.rpartition(".")
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    if stem in whole:
        return f"{whole[stem]}.{kind}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{names[rest]}.{kind}"


def permute(rows, heads):
    """What exporters do to the query and key rows of the llama family."""
    return rows.reshape(heads, 2, -1, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def write_gguf(path, architecture, config, tensors):
    writer = gguf.GGUFWriter(path, architecture)
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    gemma = architecture.startswith("gemma")
    if gemma:
        writer.add_sliding_window(config["sliding_window"])
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    scaling = config.get("rope_scaling")
    if scaling:
        writer.add_rope_scaling_type(gguf.RopeScalingType(scaling.get("rope_type", scaling.get("type"))))
        writer.add_rope_scaling_factor(scaling["factor"])
        if "original_max_position_embeddings" in scaling:
            writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
    for name, values in tensors.items():
        stored = values + 1 if gemma and name.endswith("norm.weight") else values
        if architecture == "llama" and "q_proj" in name:
            stored = permute(stored, config["num_attention_heads"])
        if architecture == "llama" and "k_proj" in name:
            stored = permute(stored, config["num_key_value_heads"])
        writer.add_tensor(gguf_name(name, gemma=gemma), stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


# The files say neither the period of the windows nor, but for the largest, the scale of attention.
SAID = {"gemma2": {"query_pre_attn_scalar": 8}, "gemma3": {"sliding_window_pattern": 6, "num_hidden_layers": 6}}


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma2", "gemma3"])
def test_a_gguf_of_each_family_is_the_same_model_as_the_folder(tmp_path, family):
    config = config_of(family, **SAID.get(family, {}))
    tensors = random_tensors(config)
    path = write_gguf(tmp_path / "model.gguf", family, config, tensors)
    folder = write_folder(tmp_path / "model", config, tensors)
    ours, theirs = ModelConfig.read(path), ModelConfig.read(folder)
    assert ours.score_scale == pytest.approx(theirs.score_scale)
    # A GGUF names its tokens elsewhere, and has an output matrix or not.
    silent = {"attention_scale": None, "tied_embeddings": True, "bos_token_id": None, "eos_token_ids": ()}
    silent |= {"context_length": 1, "rms_norm_eps": 1e-6, "rope": plain(theirs.rope)}
    assert evolve(ours, **silent | {"rope": plain(ours.rope)}) == evolve(theirs, **silent)
    np.testing.assert_allclose(ours.rms_norm_eps, theirs.rms_norm_eps)
    assert ours.rope.amplitude == pytest.approx(theirs.rope.amplitude)
    with GgufFile.open(path) as file, HfFolder(folder).open_weights() as weights:
        found, expected = load_gguf_params(file, ours, "float32"), load_hf_params(weights, theirs, "float32")
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), found, expected)


def plain(rope):
    """Its frequencies to six digits: files give yarn's factor on the amplitude in different ways."""
    return tuple(np.round(rope.inverse_frequencies(8), 6).tolist())
