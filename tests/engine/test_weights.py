"""Loading: what an exporter writes comes back, fused and in our row order; every defect is named."""

import contextlib

import gguf
import jax
import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType as Type
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.core import ModelLoadError
from atomr_trio.engine.config import ModelConfig
from atomr_trio.engine.rope_scaling import LinearScaling, RopeTable
from atomr_trio.engine.weights import load_gguf_params, random_params
from atomr_trio.formats import GgufFile

CONFIG = ModelConfig.tiny(rope=RopeTable(theta=5000.0), rms_norm_eps=2**-10)

FIELDS = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.vocab_size": 97,
    "llama.context_length": 256,
    "llama.rope.freq_base": 5000.0,
    "llama.attention.layer_norm_rms_epsilon": 2**-10,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
}


def permute(rows, heads):
    """What exporters do to the query and key rows of the llama family."""
    return rows.reshape(heads, 2, -1, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def model_tensors(seed=0, config=CONFIG):
    """Plain tensors, in the row order of the original checkpoint, by their names in the file."""
    rng = np.random.default_rng(seed)
    hidden, inner, dim = config.hidden_size, config.intermediate_size, config.head_dim
    shapes = {"token_embd": (config.vocab_size, hidden), "output_norm": (hidden,)}
    for index in range(config.num_layers):
        shapes |= {
            f"blk.{index}.attn_norm": (hidden,),
            f"blk.{index}.ffn_norm": (hidden,),
            f"blk.{index}.attn_q": (config.num_heads * dim, hidden),
            f"blk.{index}.attn_k": (config.num_kv_heads * dim, hidden),
            f"blk.{index}.attn_v": (config.num_kv_heads * dim, hidden),
            f"blk.{index}.attn_output": (hidden, config.num_heads * dim),
            f"blk.{index}.ffn_gate": (inner, hidden),
            f"blk.{index}.ffn_up": (inner, hidden),
            f"blk.{index}.ffn_down": (hidden, inner),
        }
    return {f"{name}.weight": rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def write_model(path, tensors, kind=Type.F32, config=CONFIG):
    writer = gguf.GGUFWriter(path, "llama")
    for name, values in tensors.items():
        if ".attn_q." in name:
            values = permute(values, config.num_heads)
        if ".attn_k." in name:
            values = permute(values, config.num_kv_heads)
        stored = gguf.quants.quantize(values, kind) if kind != Type.F32 and values.ndim > 1 else values
        writer.add_tensor(name, stored, raw_dtype=kind if stored is not values else Type.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def load(tmp_path, tensors, dtype="float32", on_progress=None, **options):
    with GgufFile.open(write_model(tmp_path / "model.gguf", tensors, **options)) as file:
        return load_gguf_params(file, CONFIG, dtype, on_progress)


# --- configuration ---


def test_config_from_metadata():
    assert ModelConfig.from_gguf(FIELDS) == CONFIG


def test_config_defaults():
    optional = ("llama.attention.head_count_kv", "llama.rope.freq_base", "llama.vocab_size")
    fields = {key: value for key, value in FIELDS.items() if key not in optional}
    config = ModelConfig.from_gguf({**fields, "tokenizer.ggml.tokens": ["a"] * 50})
    assert (config.num_kv_heads, config.rope.theta, config.vocab_size) == (4, 10_000.0, 50)


def test_all_kinds_of_end_tokens_end_an_answer():
    more = {"tokenizer.ggml.eot_token_id": 7, "tokenizer.ggml.eom_token_id": 2}
    assert ModelConfig.from_gguf(FIELDS | more).eos_token_ids == (2, 7)


def test_linear_rotary_scaling():
    more = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    assert ModelConfig.from_gguf(FIELDS | more).rope.scaling == LinearScaling(factor=4.0)


@pytest.mark.parametrize(
    "key", [key for key in FIELDS if key.startswith("llama.") and "kv" not in key and "rope" not in key]
)
def test_a_missing_field_is_named(key):
    with pytest.raises(ModelLoadError, match=key):
        ModelConfig.from_gguf({name: value for name, value in FIELDS.items() if name != key})


@pytest.mark.parametrize("key", [key for key in FIELDS if key.startswith("llama.")])
@pytest.mark.parametrize("value", [0, -1, "x" * 1000, [1, 2], True, float("nan"), float("inf")])
def test_an_absurd_field_is_named(key, value):
    with pytest.raises(ModelLoadError, match=key) as caught:
        ModelConfig.from_gguf(FIELDS | {key: value})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"general.architecture": "mamba"}, "`mamba` is not supported.*llama"),
        ({"general.architecture": 3}, "does not say its architecture"),
        ({"llama.expert_count": 8}, "mixture-of-experts"),
        ({"llama.rope.scaling.type": "longrope"}, "rotary scaling.*longrope"),
        ({"llama.rope.dimension_count": 4}, "rope.dimension_count"),
        ({"llama.attention.value_length": 16}, "value_length"),
        ({"llama.attention.head_count": 3}, "3 attention heads"),
        ({"llama.attention.head_count_kv": 3}, "cannot share 3"),
        ({"llama.attention.key_length": 7}, "head_dim must be even"),
    ],
)
def test_what_is_not_supported_is_named(fields, message):
    with pytest.raises(ModelLoadError, match=message):
        ModelConfig.from_gguf(FIELDS | fields)


@given(
    st.dictionaries(
        st.sampled_from([*FIELDS, "llama.attention.key_length"]), st.none() | st.integers() | st.floats() | st.text()
    )
)
def test_no_metadata_raises_anything_else(changes):
    with contextlib.suppress(ModelLoadError):
        ModelConfig.from_gguf(FIELDS | changes)


# --- tensors ---


@given(seed=st.integers(0, 2**16))
@settings(max_examples=10)
def test_matrices_are_fused_in_the_original_row_order(tmp_path_factory, seed):
    tensors = model_tensors(seed)
    params = load(tmp_path_factory.mktemp("model"), tensors)
    np.testing.assert_array_equal(params["embed"], tensors["token_embd.weight"])
    np.testing.assert_array_equal(params["final_norm"], tensors["output_norm.weight"])
    assert "output" not in params
    for index, layer in enumerate(params["layers"]):
        part = {name.split(".")[2]: values for name, values in tensors.items() if name.startswith(f"blk.{index}.")}
        np.testing.assert_array_equal(layer["qkv"], np.concatenate([part["attn_q"], part["attn_k"], part["attn_v"]]))
        np.testing.assert_array_equal(layer["gate_up"], np.concatenate([part["ffn_gate"], part["ffn_up"]]))
        for ours, name in {"attn_out": "attn_output", "down": "ffn_down"}.items():
            np.testing.assert_array_equal(layer[ours], part[name])
        for name in ("attn_norm", "ffn_norm"):
            np.testing.assert_array_equal(layer[name], part[name])


def test_quantized_tensors_are_converted(tmp_path):
    tensors = model_tensors()
    params = load(tmp_path, tensors, kind=Type.Q8_0)
    stored = gguf.quants.quantize(tensors["token_embd.weight"], Type.Q8_0)
    np.testing.assert_array_equal(params["embed"], gguf.quants.dequantize(stored, Type.Q8_0))


def test_bfloat16_is_rounded_once(tmp_path):
    tensors = model_tensors()
    params = load(tmp_path, tensors, "bfloat16")
    assert params["layers"][1]["down"].dtype == "bfloat16"
    assert params["layers"][1]["ffn_norm"].dtype == "float32"
    got = np.asarray(params["embed"]).astype(np.float32)
    np.testing.assert_allclose(got, tensors["token_embd.weight"], rtol=2**-8)


def test_int8_is_within_half_a_step_of_each_channel(tmp_path):
    tensors = model_tensors()
    tensors["blk.0.ffn_down.weight"][5] = 0
    weight = load(tmp_path, tensors, "int8")["layers"][0]["down"]
    assert weight.values.dtype == "int8"
    scale = np.asarray(weight.scale)[:, None]
    error = np.abs(np.asarray(weight.values) * scale - tensors["blk.0.ffn_down.weight"])
    assert (error <= scale * 0.5001).all()
    assert np.abs(np.asarray(weight.values)).max() == 127
    assert not np.asarray(weight.values)[5].any()


def test_an_output_matrix_of_its_own(tmp_path):
    output = np.ones((97, 32), np.float32)
    params = load(tmp_path, model_tensors() | {"output.weight": output})
    np.testing.assert_array_equal(params["output"], output)


def test_rotary_factors_of_the_file_divide_the_frequencies(tmp_path):
    plain = load(tmp_path, model_tensors())["inv_freq"]
    assert plain[0] == 1
    np.testing.assert_allclose(plain[1], 5000.0 ** (-2 / 8), rtol=1e-6)
    factors = np.array([1, 2, 4, 8], np.float32)
    scaled = load(tmp_path, model_tensors() | {"rope_freqs.weight": factors})["inv_freq"]
    np.testing.assert_allclose(scaled, np.asarray(plain) / factors, rtol=1e-6)


def test_progress_counts_every_tensor(tmp_path):
    seen = []
    load(tmp_path, model_tensors(), on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(count, 20) for count in range(1, 21)]


@pytest.mark.parametrize("name", [*model_tensors()][:11])
def test_a_missing_tensor_is_named(tmp_path, name):
    tensors = model_tensors()
    del tensors[name]
    with pytest.raises(ModelLoadError, match=f"`{name}` is missing"):
        load(tmp_path, tensors)


@pytest.mark.parametrize("name", ["token_embd.weight", "blk.1.attn_k.weight", "blk.0.ffn_norm.weight"])
def test_a_misshapen_tensor_is_named(tmp_path, name):
    tensors = model_tensors()
    tensors[name] = np.concatenate([tensors[name]] * 2)
    with pytest.raises(ModelLoadError, match=f"`{name}` has shape .* expected"):
        load(tmp_path, tensors)


def test_a_tensor_that_we_would_ignore_is_named(tmp_path):
    with pytest.raises(ModelLoadError, match=r"`blk.0.attn_v.bias` is not understood \(1 such"):
        load(tmp_path, model_tensors() | {"blk.0.attn_v.bias": np.zeros(32, np.float32)})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_named(tmp_path, value):
    tensors = model_tensors()
    tensors["blk.1.ffn_up.weight"][3, 4] = value
    with pytest.raises(ModelLoadError, match=r"`blk.1.ffn_up.weight` holds values that are not finite"):
        load(tmp_path, tensors)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_random_weights_have_the_form_of_loaded_ones(tmp_path, dtype):
    loaded = load(tmp_path, model_tensors(), dtype)
    random = random_params(CONFIG, dtype, seed=1)
    assert jax.tree.structure(random) == jax.tree.structure(loaded)
    same = jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape, b.dtype), random, loaded)
    assert jax.tree.all(same)
    again = jax.tree.map(lambda a, b: np.array_equal(a, b), random, random_params(CONFIG, dtype, seed=1))
    assert jax.tree.all(again)
    assert not np.array_equal(random["final_norm"], random_params(CONFIG, dtype, seed=2)["final_norm"])


def test_random_weights_with_an_output_matrix():
    assert "output" in random_params(ModelConfig.tiny(tied_embeddings=False), "float32", seed=0)
