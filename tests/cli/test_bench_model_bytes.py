"""What the roofline says that a step reads is what the engine's own arrays hold."""

import jax
import pytest

from atomr_trio.cli._bench_roofline import model_bytes
from atomr_trio.engine.config import ModelConfig
from atomr_trio.engine.memory import page_bytes
from atomr_trio.engine.weights import random_params

CONFIGS = {
    "tied": ModelConfig.tiny(hidden_size=64, intermediate_size=128, vocab_size=512),
    "untied": ModelConfig.tiny(hidden_size=64, intermediate_size=128, vocab_size=512, tied_embeddings=False),
    "wide heads": ModelConfig.tiny(hidden_size=64, intermediate_size=128, vocab_size=512, head_dim=32),
}


def held(config, dtype):
    """Bytes of the matrices that a step reads: all but an embedding that is only looked up in."""
    params = random_params(config, dtype, 0)
    looked_up = 0 if config.tied_embeddings else _bytes(params["embed"])
    return _bytes(params) - looked_up


def _bytes(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_it_is_what_the_engine_holds(name, dtype):
    config = CONFIGS[name]
    reads = model_bytes(config, dtype, jax.default_backend())
    # Norms and rotation tables are not counted: they are little, even here.
    assert reads.weights == pytest.approx(held(config, dtype), rel=0.03)
    assert reads.per_token * 16 == page_bytes(config, 16, dtype)


def test_a_number_type_of_unknown_size_has_no_roofline():
    assert model_bytes(CONFIGS["tied"], "fp4", "gpu") is None


def test_an_accelerator_keeps_the_cache_of_int8_in_bfloat16():
    wide, narrow = (model_bytes(CONFIGS["tied"], "int8", backend).per_token for backend in ("cpu", "gpu"))
    assert wide == 2 * narrow
