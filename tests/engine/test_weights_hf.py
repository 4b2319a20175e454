"""Weights of folders: widened, fused, norms made whole; and random ones. Every defect is named."""

import jax
import numpy as np
import pytest

from atomr_trio.core import ModelLoadError
from atomr_trio.engine.config import ModelConfig
from atomr_trio.engine.loading import load_model
from atomr_trio.engine.settings import EngineSettings
from atomr_trio.engine.weights import load_hf_params, random_params
from atomr_trio.formats import HfFolder
from tests.checkpoints import CONFIGS, config_of, random_tensors, write_folder


def load(tmp_path, config, tensors, dtype="float32", on_progress=None, **options):
    folder = HfFolder(write_folder(tmp_path / "model", config, tensors, **options))
    with folder.open_weights() as weights:
        return load_hf_params(weights, ModelConfig.from_hf(folder.config, {}), dtype, on_progress)


def test_matrices_are_fused_and_norms_are_whole(tmp_path):
    tensors = random_tensors(config_of("gemma3"))
    params = load(tmp_path, config_of("gemma3"), tensors)
    np.testing.assert_array_equal(params["embed"], tensors["model.embed_tokens.weight"])
    np.testing.assert_array_equal(params["final_norm"], tensors["model.norm.weight"] + 1)
    assert "output" not in params
    for index, layer in enumerate(params["layers"]):
        part = {name.split(".", 3)[3]: values for name, values in tensors.items() if f"layers.{index}." in name}
        qkv = [part[f"self_attn.{name}_proj.weight"] for name in "qkv"]
        np.testing.assert_array_equal(layer["qkv"], np.concatenate(qkv))
        np.testing.assert_array_equal(
            layer["gate_up"], np.concatenate([part["mlp.gate_proj.weight"], part["mlp.up_proj.weight"]])
        )
        for ours, name in {
            "attn_norm": "input_layernorm",
            "attn_post_norm": "post_attention_layernorm",
            "ffn_norm": "pre_feedforward_layernorm",
            "ffn_post_norm": "post_feedforward_layernorm",
            "q_norm": "self_attn.q_norm",
            "k_norm": "self_attn.k_norm",
        }.items():
            np.testing.assert_array_equal(layer[ours], part[f"{name}.weight"] + 1)


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_random_weights_have_the_form_of_loaded_ones(tmp_path, family, dtype):
    config = config_of(family)
    loaded = load(tmp_path, config, random_tensors(config), dtype)
    random = random_params(ModelConfig.from_hf(config, {}), dtype, seed=1)
    assert jax.tree.structure(random) == jax.tree.structure(loaded)
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), random, loaded)
    assert jax.tree.all(same)


@pytest.mark.parametrize(("kind", "tolerance"), [("F16", 2**-10), ("BF16", 2**-7), ("F64", 0)])
def test_other_number_types_and_several_files(tmp_path, kind, tolerance):
    config, tensors = config_of("qwen2"), random_tensors(config_of("qwen2"))
    params = load(tmp_path, config, tensors, kind=kind, shards=3)
    np.testing.assert_allclose(params["output"], tensors["lm_head.weight"], rtol=tolerance, atol=1e-6)


def test_a_tied_output_may_be_written_and_pictures_are_left_out(tmp_path):
    config = config_of("gemma3")
    tensors = {f"language_model.{name}": values for name, values in random_tensors(config).items()}
    plain = load(tmp_path / "a", config, random_tensors(config))
    more = {
        "language_model.lm_head.weight": tensors["language_model.model.embed_tokens.weight"],
        "vision_tower.x.weight": np.ones(3, np.float32),
        "multi_modal_projector.y": np.ones(3, np.float32),
    }
    found = load(tmp_path / "b", config, tensors | more)
    assert jax.tree.all(jax.tree.map(np.array_equal, plain, found))


def test_progress_counts_every_tensor(tmp_path):
    seen, config = [], config_of("llama")
    tensors = random_tensors(config)
    load(tmp_path, config, tensors, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(count, len(tensors)) for count in range(1, len(tensors) + 1)]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("model.layers.1.self_attn.k_proj.weight", None, "is missing"),
        ("model.embed_tokens.weight", None, "is missing"),
        ("lm_head.weight", None, "is missing"),
        ("model.norm.weight", np.ones(5, np.float32), "has shape"),
        ("model.layers.0.mlp.up_proj.weight", np.full((48, 32), np.nan, np.float32), "not finite"),
        ("model.layers.0.self_attn.q_norm.weight", np.ones(16, np.float32), "is not understood"),
    ],
)
def test_a_defect_is_named(tmp_path, name, change, message):
    config = config_of("mistral")
    tensors = random_tensors(config)
    if change is None:
        del tensors[name]
    else:
        tensors[name] = change
    with pytest.raises(ModelLoadError, match=f"`{name}` .*{message}|`{name}` {message}"):
        load(tmp_path, config, tensors)


def test_random_weights_of_the_shape_of_a_configuration(tmp_path):
    folder = write_folder(tmp_path / "model", config_of("gemma2"), {})
    for path in (folder, folder / "config.json"):
        settings = EngineSettings(model=str(path), load_format="dummy", kv_tokens=64, max_num_seqs=1)
        model = load_model(settings, lambda done, total: None)
        assert (model.served.config.architecture, model.max_model_len) == ("gemma2", 64)
    with pytest.raises(ModelLoadError, match="missing"):
        load_model(EngineSettings(model=str(folder), kv_tokens=64), lambda done, total: None)


def test_rows_of_large_random_matrices_differ():
    config = ModelConfig.tiny(vocab_size=70_000, hidden_size=32)
    embed = np.asarray(random_params(config, "float32", 0)["embed"])
    assert embed.size > 2**21
    assert len(np.unique(embed[:, :2].copy().view(np.int64))) == len(embed)
    assert abs(float(embed.std()) * 32**0.5 - 1) < 0.01
