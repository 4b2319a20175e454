"""What `dtype = auto` chooses on a CPU says the same as float32: the promise of the documentation, on a few real texts.

`benchmarks/agreement.py` measures all of them.
"""

import json
from functools import partial

import jax
import numpy as np
import pytest

from atomr_trio.engine.config import ModelConfig
from atomr_trio.engine.loading import resolve_dtype
from atomr_trio.engine.model import forward, init_kv, logits
from atomr_trio.engine.weights import load_gguf_params
from atomr_trio.formats import GgufFile

PAGE, LENGTH = 16, 48
TEXTS = 3


@partial(jax.jit, static_argnums=(0, 1))
def logprobs(config, dtype, params, tokens, positions, tables):
    kv = init_kv(config, tables.size + 1, PAGE, dtype)
    hidden, _ = forward(config, params, kv, tokens, positions, tables)
    return jax.nn.log_softmax(logits(config, params, hidden))


@pytest.fixture(scope="module")
def texts(data_dir):
    """The shortest ones: token ids, and the positions that are not padding."""
    cases = json.loads((data_dir / "smollm2-135m-instruct.json").read_text())["cases"]
    chosen = sorted((case["prompt_ids"] + case["greedy_ids"] for case in cases), key=len)[:TEXTS]
    tokens, positions = np.zeros((TEXTS, LENGTH), np.int32), np.full((TEXTS, LENGTH), -1, np.int32)
    for row, text in enumerate(chosen):
        tokens[row, : len(text)], positions[row, : len(text)] = text, np.arange(len(text))
    return tokens, positions


def test_the_dtype_that_auto_chooses_agrees_with_float32(smollm2_path, texts):
    tokens, positions = texts
    chosen = resolve_dtype("auto", "cpu")
    assert chosen != "float32"
    tables = 1 + np.arange(TEXTS * LENGTH // PAGE, dtype=np.int32).reshape(TEXTS, -1)
    found = []
    with GgufFile.open(smollm2_path) as file:
        config = ModelConfig.from_gguf(file.fields)
        for dtype in ("float32", chosen):
            params = load_gguf_params(file, config, dtype)
            found.append(np.asarray(logprobs(config, dtype, params, tokens, positions, tables))[positions >= 0])
    exact, near = found
    assert (exact.argmax(-1) == near.argmax(-1)).mean() >= 0.95
    assert (np.exp(exact) * (exact - near)).sum(-1).mean() < 0.02
