"""The real Gemma 3 270M: two rotary tables, four norms, windows, a vocabulary of SentencePiece's kind."""

import json

import numpy as np
import pytest
from test_model import REAL_PAGE, REAL_WIDTH, real_step, real_tables, score_prompts

from atomr_trio.engine.config import ModelConfig
from atomr_trio.engine.model import init_kv
from atomr_trio.engine.weights import load_gguf_params
from atomr_trio.formats import GgufFile
from atomr_trio.text import Tokenizer


@pytest.fixture(scope="module")
def cases(data_dir):
    return json.loads((data_dir / "gemma3-270m.json").read_text())["cases"]


@pytest.fixture(scope="module")
def tokenizer(gemma3_path):
    with GgufFile.open(gemma3_path) as file:
        return Tokenizer.from_gguf(file.fields)


def test_prompts_have_the_reference_ids_and_answers_its_text(tokenizer, cases):
    for case in cases:
        assert tokenizer.encode(case["prompt"]) == case["prompt_ids"]
        assert tokenizer.decode(case["greedy_ids"], skip_special=False) == case["greedy_text"]
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (2, {1, 106})


def test_prompt_logprobs_and_greedy_tokens_equal_the_reference(gemma3_path, cases):
    with GgufFile.open(gemma3_path) as file:
        config = ModelConfig.from_gguf(file.fields)
        params = load_gguf_params(file, config, "float32")
    kv = init_kv(config, 1 + len(cases) * REAL_WIDTH, REAL_PAGE, "float32")
    scored, kv = score_prompts(config, params, kv, [case["prompt_ids"] for case in cases], 16)
    for case, (scores, _) in zip(cases, scored, strict=True):
        np.testing.assert_allclose(scores, case["prompt_logprobs"][1:], atol=0.01)
    drawn = [[int(best)] for _, best in scored]
    for count in range(1, max(case["safe_length"] for case in cases)):
        tokens = np.array([[row[-1]] for row in drawn], np.int32)
        positions = np.array([[len(case["prompt_ids"]) + count - 1] for case in cases], np.int32)
        _, best, kv = real_step(config, params, kv, tokens, positions, real_tables(len(cases)), tokens)
        for row, token in zip(drawn, np.asarray(best)[:, 0], strict=True):
            row.append(int(token))
    for case, row in zip(cases, drawn, strict=True):
        assert row[: case["safe_length"]] == case["greedy_ids"][: case["safe_length"]]
