"""Safetensors and folders of them: what was written is read, and no damage goes unnoticed."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import ModelLoadError
from atomr_trio.formats import HfFolder, SafetensorsFile
from tests.checkpoints import to_bfloat16, write_folder, write_safetensors

SMALL = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([0.5, -2.0], np.float32)}


def refused(path, match):
    with pytest.raises(ModelLoadError, match=match) as caught:
        SafetensorsFile.open(path)
    assert str(path.parent) not in str(caught.value)


def build(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@given(
    tensors=st.dictionaries(st.text(min_size=1, max_size=8), shapes, max_size=5),
    kind=st.sampled_from(["F32", "F16", "BF16", "F64"]),
    seed=st.integers(0, 2**16),
)
def test_what_was_written_is_read(tmp_path_factory, tensors, kind, seed):
    rng = np.random.default_rng(seed)
    values = {name: rng.standard_normal(shape, np.float32) for name, shape in tensors.items() if name != "__metadata__"}
    path = tmp_path_factory.mktemp("st") / "model.safetensors"
    write_safetensors(path, values, kind)
    with SafetensorsFile.open(path) as file:
        assert set(file.tensors) == set(values)
        for name, expected in values.items():
            found = file.tensors[name].widen()
            if kind == "F16":
                expected = expected.astype(np.float16).astype(np.float32)
            if kind == "BF16":
                expected = (to_bfloat16(expected).astype(np.uint32) << 16).view(np.float32)
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, expected)


def test_every_truncation_is_refused(tmp_path):
    whole = tmp_path / "whole.safetensors"
    write_safetensors(whole, SMALL)
    data, cut = whole.read_bytes(), tmp_path / "cut.safetensors"
    for size in range(len(data)):
        cut.write_bytes(data[:size])
        refused(cut, "truncated|corrupt|not a safetensors")


@given(data=st.data())
def test_damage_is_refused_or_harmless(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("st") / "model.safetensors"
    write_safetensors(path, SMALL)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        file = SafetensorsFile.open(path)
    except ModelLoadError:
        return
    with file:
        for tensor in file.tensors.values():
            try:
                assert tensor.widen().shape == tensor.shape
            except ModelLoadError as error:
                assert tensor.kind in error.message


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ([], "`t` is not described"),
        ({"dtype": "F32", "shape": [2]}, "`t` is not described"),
        ({"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}, "unknown type F99"),
        ({"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}, "no proper shape"),
        ({"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}, "no proper shape"),
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}, "not that of its shape"),
        ({"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}, "reaches past its end"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [8, 4]}, "reaches past its end"),
    ],
)
def test_wrong_descriptions_are_named(tmp_path, about, message):
    refused(build(tmp_path / "t.safetensors", {"t": about}, bytes(8)), message)


@pytest.mark.parametrize("header", [b"[]", b"{", b"\xff", b"[" * 100_000])
def test_wrong_headers_are_refused(tmp_path, header):
    refused(build(tmp_path / "t.safetensors", header), "corrupt|not a safetensors")


def test_whole_numbers_are_not_weights(tmp_path):
    path = build(tmp_path / "t.safetensors", {"t": {"dtype": "I8", "shape": [2], "data_offsets": [0, 2]}}, bytes(2))
    with SafetensorsFile.open(path) as file, pytest.raises(ModelLoadError, match="`t` has type I8"):
        file.tensors["t"].widen()


# --- folders ---


def test_a_folder_is_known_by_its_configuration(tmp_path):
    assert HfFolder.at(tmp_path) is None
    write_folder(tmp_path, {"a": 1}, SMALL)
    for path in (tmp_path, tmp_path / "config.json", str(tmp_path)):
        assert HfFolder.at(path) == HfFolder(tmp_path)
    folder = HfFolder(tmp_path)
    assert (folder.config, folder.generation, folder.tokenizer_config) == ({"a": 1}, {}, {})
    assert (folder.chat_template, folder.has_tokenizer) == (None, False)


@pytest.mark.parametrize("shards", [1, 2])
def test_weights_are_found_in_all_files(tmp_path, shards):
    with write_then(tmp_path, shards).open_weights() as weights:
        assert set(weights.tensors) == set(SMALL)
        for name, values in SMALL.items():
            np.testing.assert_array_equal(weights.tensors[name].widen(), values)


def write_then(path, shards):
    return HfFolder(write_folder(path, {}, SMALL, shards=shards))


def test_missing_and_wrong_files_are_named(tmp_path):
    folder = write_then(tmp_path, 2)
    index = tmp_path / "model.safetensors.index.json"
    for content, message in [
        ("[]", "`model.safetensors.index.json` is not a JSON object"),
        ("{", "is not JSON"),
        ("{}", "no `weight_map`"),
        (json.dumps({"weight_map": {"a": "../../secret.safetensors"}}), "not one of safetensors in the folder"),
        (json.dumps({"weight_map": {"a": "model.bin"}}), "not one of safetensors in the folder"),
        (json.dumps({"weight_map": {"a": "gone.safetensors"}}), "`gone.safetensors` cannot be read"),
        (json.dumps({"weight_map": {"c": "model-00001-of-00002.safetensors"}}), "`c` is not in"),
    ]:
        index.write_text(content)
        with pytest.raises(ModelLoadError, match=message) as caught:
            folder.open_weights()
        assert str(tmp_path) not in str(caught.value)
    index.unlink()
    with pytest.raises(ModelLoadError, match="no weights in safetensors"):
        folder.open_weights()
    (tmp_path / "config.json").write_bytes(b"\xff")
    with pytest.raises(ModelLoadError, match=r"`config.json` is not UTF-8"):
        _ = folder.config
    with pytest.raises(ModelLoadError, match=r"the folder has no `tokenizer.json`"):
        _ = folder.tokenizer


def test_the_template_beside_wins_over_the_one_inside(tmp_path):
    folder, about = HfFolder(tmp_path), tmp_path / "tokenizer_config.json"
    about.write_text(json.dumps({"chat_template": "inside"}))
    assert folder.chat_template == "inside"
    about.write_text(json.dumps({"chat_template": [{"name": "rag", "template": "x"}]}))
    assert folder.chat_template is None
    about.write_text(json.dumps({"chat_template": [{"name": "default", "template": "plain"}]}))
    assert folder.chat_template == "plain"
    (tmp_path / "chat_template.jinja").write_text("beside")
    assert folder.chat_template == "beside"
