"""The GGUF reader: whatever the writer of the library writes is read back, and no damage goes unnoticed."""

import struct

import gguf
import numpy as np
import pytest
from gguf.constants import GGMLQuantizationType as Type
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import ModelLoadError
from atomr_trio.formats import GgufFile

QUANTIZED = [Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0]


def write(path, fields=(), tensors=(), alignment=None):
    """``fields``: (writer method, key, value); ``tensors``: (name, float32 array, type)."""
    writer = gguf.GGUFWriter(path, "llama")
    if alignment:
        writer.add_custom_alignment(alignment)
    for method, key, value in fields:
        getattr(writer, f"add_{method}")(key, value)
    for name, values, kind in tensors:
        stored = values if kind == Type.F32 else gguf.quants.quantize(values, kind)
        writer.add_tensor(name, stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def small_file(path):
    rng = np.random.default_rng(0)
    fields = [
        ("uint32", "llama.block_count", 2),
        ("float32", "llama.eps", 0.5),
        ("array", "tokenizer.ggml.tokens", ["<s>", "", "Ġhello", "日本"]),
        ("array", "tokenizer.ggml.scores", [0.0, -1.5]),
        ("bool", "flag", True),
    ]
    tensors = [
        ("a.weight", rng.standard_normal((2, 32), np.float32), Type.Q4_1),
        ("b.weight", rng.standard_normal(8, np.float32), Type.F32),
    ]
    return write(path, fields, tensors)


def open_bytes(tmp_path, data):
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    return GgufFile.open(path)


def header(*, version=3, tensors=0, fields=0, rest=b""):
    return b"GGUF" + struct.pack("<IQQ", version, tensors, fields) + rest


def string(text):
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(raw)) + raw


def tensor(name="t", dims=(4,), kind=0, offset=0):
    return string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def refused(tmp_path, data):
    with pytest.raises(ModelLoadError) as caught:
        open_bytes(tmp_path, data)
    assert str(tmp_path) not in str(caught.value)
    return str(caught.value)


scalars = st.one_of(
    st.tuples(st.just("uint8"), st.integers(0, 2**8 - 1)),
    st.tuples(st.just("int8"), st.integers(-(2**7), 2**7 - 1)),
    st.tuples(st.just("uint16"), st.integers(0, 2**16 - 1)),
    st.tuples(st.just("int16"), st.integers(-(2**15), 2**15 - 1)),
    st.tuples(st.just("uint32"), st.integers(0, 2**32 - 1)),
    st.tuples(st.just("int32"), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.just("uint64"), st.integers(0, 2**64 - 1)),
    st.tuples(st.just("int64"), st.integers(-(2**63), 2**63 - 1)),
    st.tuples(st.just("float32"), st.floats(width=32, allow_nan=False)),
    st.tuples(st.just("float64"), st.floats(allow_nan=False)),
    st.tuples(st.just("bool"), st.booleans()),
    st.tuples(st.just("string"), st.text(min_size=1)),
)
# The library's writer takes the type of an array from its first entry, and leaves empty ones out.
arrays = st.one_of(
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1),
    st.lists(st.booleans(), min_size=1),
    st.lists(st.text(), min_size=1),
).map(lambda values: ("array", values))
names = st.text("abc._0", min_size=1, max_size=8)


@st.composite
def matrices(draw):
    kind = draw(st.sampled_from([Type.F32, *QUANTIZED]))
    shape = (*draw(st.lists(st.integers(1, 3), max_size=2)), 32 * draw(st.integers(1, 3)))
    seed = draw(st.integers(0, 2**16))
    return np.random.default_rng(seed).standard_normal(shape, np.float32), kind


@given(
    fields=st.dictionaries(names, scalars | arrays, max_size=6),
    tensors=st.dictionaries(names, matrices(), max_size=4),
    alignment=st.sampled_from([None, 8, 64]),
)
def test_what_was_written_is_read(tmp_path_factory, fields, tensors, alignment):
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    write(
        path,
        [(method, key, value) for key, (method, value) in fields.items()],
        [(name, values, kind) for name, (values, kind) in tensors.items()],
        alignment,
    )
    with GgufFile.open(path) as file:
        assert {key: file.fields[key] for key in fields} == {key: value for key, (_, value) in fields.items()}
        assert file.fields["general.architecture"] == "llama"
        assert list(file.tensors) == list(tensors)
        for name, (values, kind) in tensors.items():
            found = file.tensors[name]
            assert (found.name, found.shape, found.ggml_type) == (name, values.shape, kind)
            stored = values if kind == Type.F32 else gguf.quants.quantize(values, kind)
            np.testing.assert_array_equal(found.dequantize(), gguf.quants.dequantize(stored, kind))


def test_every_truncation_is_refused(tmp_path):
    path = small_file(tmp_path / "whole.gguf")
    data = path.read_bytes()
    with GgufFile.open(path) as file:
        whole = {name: tensor.raw.copy() for name, tensor in file.tensors.items()}
    # Behind the last tensor there is only padding, which holds nothing.
    content = data.rindex(whole["b.weight"].tobytes()) + whole["b.weight"].nbytes
    for size in range(content):
        refused(tmp_path, data[:size])
    for size in range(content, len(data)):
        with open_bytes(tmp_path, data[:size]) as file:
            for name, raw in whole.items():
                np.testing.assert_array_equal(file.tensors[name].raw, raw)


def test_every_truncation_of_mere_metadata_is_refused(tmp_path):
    fields = [("array", "tokens", ["one", "two and a half"])]
    data = write(tmp_path / "whole.gguf", fields).read_bytes()
    content = data.rindex(b"two and a half") + len(b"two and a half")
    for size in range(content):
        refused(tmp_path, data[:size])
    with open_bytes(tmp_path, data[:content]) as file:
        assert file.fields["tokens"] == ["one", "two and a half"]


@given(data=st.data())
def test_damage_is_refused_or_harmless(tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("gguf")
    content = bytearray(small_file(tmp_path / "whole.gguf").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        file = open_bytes(tmp_path, content)
    except ModelLoadError:
        return
    with file:
        for found in file.tensors.values():
            try:
                assert found.dequantize().shape == found.shape
            except ModelLoadError as error:
                assert found.ggml_type.name in error.message


@given(noise=st.binary(max_size=200), genuine=st.booleans())
def test_noise_is_refused_or_empty(tmp_path_factory, noise, genuine):
    tmp_path = tmp_path_factory.mktemp("gguf")
    try:
        with open_bytes(tmp_path, (b"GGUF\3\0\0\0" if genuine else b"") + noise) as file:
            assert genuine
            assert isinstance(file.fields, dict)
    except ModelLoadError:
        pass


def test_not_a_gguf(tmp_path):
    assert "not a GGUF" in refused(tmp_path, b"PK\3\4" + bytes(100))
    assert "empty" in refused(tmp_path, b"")


@pytest.mark.parametrize("version", [0, 1, 4, 2**32 - 1])
def test_other_versions_are_named(tmp_path, version):
    assert f"version {version} is not supported" in refused(tmp_path, header(version=version))


def test_big_endian_is_named(tmp_path):
    assert "big-endian" in refused(tmp_path, b"GGUF" + struct.pack(">IQQ", 3, 0, 0))


def test_version_2_is_read(tmp_path):
    with open_bytes(tmp_path, header(version=2)) as file:
        assert file.fields == {}
        assert file.tensors == {}


@pytest.mark.parametrize("count", [1000, 2**40, 2**64 - 1])
def test_absurd_counts_are_refused_at_once(tmp_path, count):
    assert f"declares {count} tensors" in refused(tmp_path, header(tensors=count))
    assert f"declares {count} metadata fields" in refused(tmp_path, header(fields=count))
    for item in (4, 8):
        array = string("key") + struct.pack("<IIQ", 9, item, count)
        assert "past the end" in refused(tmp_path, header(fields=1, rest=array))
    assert "past the end" in refused(tmp_path, header(fields=1, rest=struct.pack("<Q", count) + bytes(20)))


def test_unknown_types_are_named(tmp_path):
    assert "`t` has the unknown type 9999" in refused(tmp_path, header(tensors=1, rest=tensor(kind=9999)))
    field = string("key") + struct.pack("<I", 13)
    assert "`key` has the unknown type 13" in refused(tmp_path, header(fields=1, rest=field + bytes(8)))
    # Arrays of arrays exist in the format's text, but no reader takes them.
    nested = string("key") + struct.pack("<IIQ", 9, 9, 1) + bytes(20)
    assert "`key` has the unknown type 9" in refused(tmp_path, header(fields=1, rest=nested))


@pytest.mark.parametrize("dims", [(), (1, 1, 1, 1, 1), (0,), (4, 0)])
def test_odd_shapes_are_refused(tmp_path, dims):
    assert "tensor `t`" in refused(tmp_path, header(tensors=1, rest=tensor(dims=dims) + bytes(64)))


def test_a_row_that_is_no_whole_block_is_refused(tmp_path):
    assert "Q4_0 has shape (33,)" in refused(tmp_path, header(tensors=1, rest=tensor(dims=(33,), kind=2) + bytes(99)))


def test_a_tensor_outside_the_file_is_refused(tmp_path):
    for description in (tensor(dims=(2**62, 2**62)), tensor(offset=2**64 - 1)):
        assert "truncated: tensor `t`" in refused(tmp_path, header(tensors=1, rest=description + bytes(64)))


def test_duplicates_are_refused(tmp_path):
    field = string("key") + struct.pack("<IB", 0, 1)
    assert "`key` appears twice" in refused(tmp_path, header(fields=2, rest=field * 2))
    assert "`t` appears twice" in refused(tmp_path, header(tensors=2, rest=tensor() * 2 + bytes(96)))


@pytest.mark.parametrize("alignment", [0, 3, 2**32 - 1])
def test_a_wrong_alignment_is_refused(tmp_path, alignment):
    field = string("general.alignment") + struct.pack("<II", 4, alignment)
    assert "alignment" in refused(tmp_path, header(fields=1, rest=field))


def test_text_that_is_not_utf8_is_refused(tmp_path):
    field = string(b"\xff\xfe") + struct.pack("<IB", 0, 1)
    assert "UTF-8" in refused(tmp_path, header(fields=1, rest=field))


def test_a_type_without_conversion_is_named(tmp_path):
    block, size = gguf.GGML_QUANT_SIZES[Type.Q8_K]
    data = header(tensors=1, rest=tensor(dims=(block,), kind=Type.Q8_K.value))
    data += bytes(-len(data) % 32) + bytes(size)
    with open_bytes(tmp_path, data) as file, pytest.raises(ModelLoadError, match="`t` has type Q8_K"):
        file.tensors["t"].dequantize()


def test_a_missing_file_and_a_folder_do_not_show_their_path(tmp_path):
    for path in (tmp_path / "nothing.gguf", tmp_path):
        with pytest.raises(ModelLoadError, match="cannot be read") as caught:
            GgufFile.open(path)
        assert str(tmp_path) not in str(caught.value)


def test_closing_unmaps_but_held_arrays_live_on(tmp_path):
    file = GgufFile.open(small_file(tmp_path / "model.gguf"))
    raw = file.tensors["b.weight"].raw
    before = raw.copy()
    file.close()
    file.close()
    assert file.tensors == {}
    np.testing.assert_array_equal(raw, before)
    with pytest.raises(ValueError, match="read-only"):
        raw[0] = 1


def test_the_default_model(smollm2_path):
    with GgufFile.open(smollm2_path) as file:
        assert file.fields["general.architecture"] == "llama"
        assert len(file.fields["tokenizer.ggml.tokens"]) == 49152
        assert len(file.tensors) == 272
        assert file.tensors["blk.0.ffn_down.weight"].shape == (576, 1536)
