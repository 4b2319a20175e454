"""``config.json`` in its spellings, and everything in it that is missing, absurd or not supported, by its name."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import ModelLoadError
from atomr_trio.engine.config import ModelConfig
from atomr_trio.engine.rope_scaling import LinearScaling, Llama3Scaling, RopeTable, YarnScaling
from tests.checkpoints import CONFIGS, LLAMA3, config_of


def read(family="llama", generation=None, **changes):
    return ModelConfig.from_hf(config_of(family, **changes), generation or {})


def test_sizes():
    config = read()
    assert (config.num_layers, config.hidden_size, config.intermediate_size, config.vocab_size) == (3, 32, 48, 300)
    assert (config.num_heads, config.num_kv_heads, config.head_dim, config.context_length) == (4, 2, 8, 64)
    assert config.tied_embeddings
    assert (config.bos_token_id, config.eos_token_ids) == (258, (259,))


@pytest.mark.parametrize(
    ("family", "switches"),
    [
        ("llama", {"qkv_bias": False, "qk_norm": False, "post_norms": False, "windows": ()}),
        ("llama3", {"qkv_bias": True, "out_bias": True}),
        ("mistral", {"windows": (6, 6, 6), "head_dim": 16, "tied_embeddings": False}),
        ("qwen2", {"qkv_bias": True, "out_bias": False, "windows": (), "head_dim": 8}),
        ("qwen3", {"qk_norm": True, "qkv_bias": False, "head_dim": 12, "activation": "silu"}),
        ("gemma2", {"windows": (6, 0, 6), "attention_soft_cap": 5.0, "final_soft_cap": 3.0, "qk_norm": False}),
        ("gemma3", {"windows": (5, 5, 0), "attention_soft_cap": None, "local_rope": RopeTable(), "qk_norm": True}),
    ],
)
def test_switches_of_each_family(family, switches):
    config = read(family)
    assert {name: getattr(config, name) for name in switches} == switches
    gemma = family.startswith("gemma")
    assert (config.post_norms, config.scaled_embedding, config.activation == "gelu") == (gemma,) * 3


def test_attention_scale():
    assert read("gemma2").score_scale == 20**-0.5
    assert read("llama").score_scale == 8**-0.5
    assert read("gemma3", query_pre_attn_scalar=None).score_scale == 256**-0.5


def test_null_switches_a_soft_cap_off_and_silence_does_not():
    assert read("gemma2", attn_logit_softcapping=None).attention_soft_cap is None
    silent = config_of("gemma2")
    del silent["attn_logit_softcapping"], silent["final_logit_softcapping"]
    config = ModelConfig.from_hf(silent, {})
    assert (config.attention_soft_cap, config.final_soft_cap) == (50.0, 30.0)


@pytest.mark.parametrize(
    ("family", "changes", "windows"),
    [
        ("mistral", {"sliding_window": None}, ()),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 1}, (0, 4, 4)),
        ("qwen3", {"use_sliding_window": False, "sliding_window": 4, "max_window_layers": 0}, ()),
        ("gemma3", {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, (0, 5, 0)),
        ("gemma3", {"sliding_window_pattern": None, "num_hidden_layers": 7}, (5, 5, 5, 5, 5, 0, 5)),
        ("gemma2", {"sliding_window": None, "num_hidden_layers": 2}, (4096, 0)),
    ],
)
def test_windows(family, changes, windows):
    assert read(family, **changes).windows == windows


def test_rotary_frequencies_in_both_spellings():
    llama3 = Llama3Scaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=32)
    expected = RopeTable(theta=5e5, scaling=llama3)
    assert read(rope_theta=5e5, rope_scaling=LLAMA3).rope == expected
    new = config_of("llama", rope_parameters={"rope_theta": 5e5, **LLAMA3})
    del new["rope_theta"]
    assert ModelConfig.from_hf(new, {}).rope == expected


def test_rotary_frequencies_by_kind_of_layer():
    new = config_of(
        "gemma3",
        rope_theta=None,
        rope_local_base_freq=None,
        rope_scaling=None,
        rope_parameters={
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
        },
    )
    config = ModelConfig.from_hf(new, {})
    assert config.rope == RopeTable(theta=1e6, scaling=LinearScaling(factor=8.0)) == read("gemma3").rope
    assert config.local_rope == RopeTable(theta=2e4)
    silent = config_of("gemma3", rope_theta=None, rope_local_base_freq=None, rope_scaling=None)
    config = ModelConfig.from_hf(silent, {})
    assert (config.rope, config.local_rope) == (RopeTable(theta=1e6), RopeTable(theta=1e4))


def test_yarn_stretches_the_context():
    config = read("qwen2")
    assert config.rope.scaling == YarnScaling(factor=4.0, original_context=16)
    assert config.context_length == 64
    scaling = {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 64,
        "mscale": 1,
        "truncate": False,
    }
    config = read("qwen2", rope_scaling={**scaling, "mscale_all_dim": 1})
    assert config.context_length == 512
    assert config.rope.scaling == YarnScaling(factor=8.0, original_context=64, attention_factor=1.0, truncate=False)


def test_the_generation_configuration_wins():
    config = read(generation={"eos_token_id": [7, 9], "bos_token_id": None})
    assert (config.eos_token_ids, config.bos_token_id) == ((7, 9), 258)
    assert read(generation={"eos_token_id": 0}).eos_token_ids == (0,)
    assert read(eos_token_id=5).eos_token_ids == (5,)
    assert read(eos_token_id=None).eos_token_ids == ()


def test_the_text_part_of_a_model_with_pictures():
    text = {name: value for name, value in config_of("gemma3").items() if name != "num_attention_heads"}
    whole = {"model_type": "gemma3", "text_config": text, "eos_token_id": [1, 106]}
    config = ModelConfig.from_hf(whole, {})
    assert (config.architecture, config.num_heads, config.eos_token_ids) == ("gemma3", 8, (1, 106))
    with pytest.raises(ModelLoadError, match="`text_config` is missing"):
        ModelConfig.from_hf({"model_type": "gemma3"}, {})


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads"])
def test_a_missing_field_is_named(key):
    with pytest.raises(ModelLoadError, match=f"`{key}` is missing"):
        read(**{key: None})


@pytest.mark.parametrize("key", ["hidden_size", "head_dim", "rms_norm_eps", "rope_theta", "max_position_embeddings"])
@pytest.mark.parametrize("value", [0, -1, "x" * 1000, [1, 2], True, float("nan"), float("inf")])
def test_an_absurd_field_is_named(key, value):
    with pytest.raises(ModelLoadError, match=key) as caught:
        read(**{key: value})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, "`mamba` is not supported.*llama.*gemma3"),
        ({"model_type": None}, "does not say its architecture"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"mlp_bias": 1}, "mlp_bias"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"hidden_act": "relu"}, "activation `'relu'`"),
        ({"hidden_act": ["silu"]}, "activation `a list`"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rotary scaling `'dynamic'`"),
        ({"rope_scaling": {"type": "linear"}}, "`factor` is missing"),
        ({"rope_scaling": "linear"}, "`rope_scaling` is 'linear', not an object"),
        ({"rope_parameters": {"partial_rotary_factor": 0.25}}, "partial_rotary_factor"),
        ({"rope_theta": 1.0}, "above 1"),
        ({"head_dim": None, "num_attention_heads": 3}, "3 attention heads do not divide"),
        ({"num_key_value_heads": 3}, "cannot share 3"),
        ({"head_dim": 7}, "head_dim must be even"),
        ({"model_type": "mistral", "layer_types": ["linear_attention"] * 3, "sliding_window": 4}, "'linear_attention'"),
        ({"model_type": "mistral", "layer_types": ["full_attention"], "sliding_window": 4}, "each of 3 layers"),
        (
            {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 4, "max_window_layers": "a"},
            "max_window",
        ),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, "both directions"),
    ],
)
def test_what_is_not_supported_is_named(changes, message):
    with pytest.raises(ModelLoadError, match=message):
        read(**changes)


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers() | st.text())
KEYS = sorted(
    {key for family in CONFIGS for key in config_of(family)} | {"layer_types", "rope_parameters", "hidden_act"}
)


@given(
    family=st.sampled_from([*CONFIGS]),
    changes=st.dictionaries(st.sampled_from(KEYS), values | st.dictionaries(st.sampled_from(KEYS), values)),
)
def test_no_configuration_raises_anything_else(family, changes):
    with contextlib.suppress(ModelLoadError):
        ModelConfig.from_hf(config_of(family) | changes, {})
