"""A model that somebody wrote on their own, served by a deployment: its module is imported in the device process."""

import json
import os
import string
from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from atomr_trio.core import Deployment, ExecuteBatch, ModelLoadError, SamplingParams
from atomr_trio.runners.jax_local import JaxLocalRunner
from atomr_trio.runtime import Cluster

TOY_FOLDER = str(Path(__file__).parents[1] / "engine")


@pytest.fixture
def toy(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [TOY_FOLDER, os.environ.get("PYTHONPATH")])))
    letters = {letter: number for number, letter in enumerate([*string.ascii_letters, *string.digits, "Ġ", "."])}
    tokenizer = tokenizers.Tokenizer(models.BPE(letters, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    config = {"load_format": "python", "tokenizer": str(tmp_path), "max_model_len": 96, "compile_cache": False}
    return Deployment(name="toy", model="toy_gpt:make", runtime="jax", runtime_config=config)


async def test_it_answers(toy):
    async with Cluster.open() as cluster:
        await cluster.deploy(toy)
        sampling = SamplingParams(max_tokens=7, temperature=0, ignore_eos=True)
        asked = ExecuteBatch(request_id="r", model="toy", prompt="abc", sampling=sampling)
        answer = await cluster.execute(asked)
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (3, 7)
        assert len(answer.text) == 7


@pytest.mark.parametrize("lacking", ["tokenizer", "max_model_len"])
def test_what_nobody_can_guess_has_to_be_said(lacking):
    config = {"load_format": "python", "tokenizer": "somewhere", "max_model_len": 96, lacking: None}
    with pytest.raises(ModelLoadError, match="needs `tokenizer` and `max_model_len`"):
        JaxLocalRunner.from_deployment(Deployment(name="toy", model="x:y", runtime="jax", runtime_config=config))
