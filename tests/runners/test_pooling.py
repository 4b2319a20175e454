"""How embeddings are made: as the model says, or as it is told."""

import json

import pytest
from gguf import GGUFWriter

from atomr_trio.core import Deployment, ModelLoadError
from atomr_trio.runners._jax_config import JaxConfig, engine_settings, with_pooling
from atomr_trio.runners._pooling import model_pooling
from tests.checkpoints import config_of, random_tensors, write_folder


def folder(tmp_path, **modes):
    config = config_of("qwen3")
    path = write_folder(tmp_path / "model", config, random_tensors(config))
    if modes:
        (path / "1_Pooling").mkdir()
        said = {"word_embedding_dimension": 32, "include_prompt": True}
        said |= {f"pooling_mode_{name}": on for name, on in modes.items()}
        (path / "1_Pooling" / "config.json").write_text(json.dumps(said))
    return path


def file(tmp_path, pooling_type):
    path = tmp_path / "model.gguf"
    writer = GGUFWriter(path, "qwen3")
    if pooling_type is not None:
        writer.add_uint32("qwen3.pooling_type", pooling_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("modes", "wanted"),
    [
        ({}, None),
        ({"lasttoken": False, "mean_tokens": False}, None),
        ({"lasttoken": True, "cls_token": False}, "last"),
        ({"lasttoken": False, "mean_tokens": True}, "mean"),
    ],
)
def test_a_folder_says_it_in_the_words_of_sentence_transformers(tmp_path, modes, wanted):
    assert model_pooling(folder(tmp_path, **modes)) == wanted


@pytest.mark.parametrize(("said", "wanted"), [(None, None), (0, None), (1, "mean"), (3, "last")])
def test_a_file_says_it_with_a_number(tmp_path, said, wanted):
    assert model_pooling(file(tmp_path, said)) == wanted


@pytest.mark.parametrize("modes", [{"cls_token": True}, {"mean_tokens": True, "lasttoken": True}])
def test_what_cannot_be_done_is_named_unless_told_otherwise(tmp_path, modes):
    path = folder(tmp_path, **modes)
    with pytest.raises(ModelLoadError, match="token"):
        with_pooling(path, JaxConfig())
    assert with_pooling(path, JaxConfig(pooling="mean")).settled_pooling == "mean"
    with pytest.raises(ModelLoadError, match="`4`"):
        model_pooling(file(tmp_path, 4))


def test_the_device_process_is_told_what_to_warm(tmp_path):
    path = folder(tmp_path, mean_tokens=True)
    deployment = Deployment(name="m", model=str(path))
    for config, wanted in [
        (JaxConfig(warm_embeddings=True), "mean"),
        (JaxConfig(), None),
        (JaxConfig(warm_embeddings=True, pooling="last"), "last"),
    ]:
        assert engine_settings(str(path), with_pooling(path, config), deployment).warm_pooling == wanted
    assert JaxConfig().settled_pooling == "last"
