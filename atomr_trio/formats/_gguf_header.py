"""Parses the header of a GGUF file: metadata fields and the table of tensors. Pure: bytes in, values out."""

import mmap
import struct
from math import prod
from typing import Any

from attrs import frozen
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from atomr_trio.core import ModelLoadError

from ._cursor import Cursor

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_DIMENSIONS = 4
DEFAULT_ALIGNMENT = 32

_U32, _U64, _BOOL = struct.Struct("<I"), struct.Struct("<Q"), struct.Struct("<?")
_TYPE_STRING, _TYPE_ARRAY = 8, 9
_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: _U32,
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: _BOOL,
    10: _U64,
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}

# The smallest encodings, to refuse absurd counts before a loop or a list is made of them.
_MIN_FIELD_BYTES = 8 + 4 + 1
_MIN_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8


@frozen
class TensorInfo:
    """Where a tensor lies. ``shape`` is in numpy order; ``start`` is an offset in the file, in bytes."""

    name: str
    shape: tuple[int, ...]
    ggml_type: GGMLQuantizationType
    start: int
    size: int

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Shape of the stored bytes: the last axis is a row's size in bytes."""
        block, size = GGML_QUANT_SIZES[self.ggml_type]
        return (*self.shape[:-1], self.shape[-1] // block * size)


@frozen
class Header:
    """A parsed header."""

    fields: dict[str, Any]
    tensors: dict[str, TensorInfo]


def parse_header(data: bytes | mmap.mmap) -> Header:
    """Parse a whole file's header and check that every tensor lies inside the file.

    Raises:
        ModelLoadError: not a GGUF, an unsupported version, truncated, or corrupt.
    """
    cursor = Cursor(data)
    _check_magic(cursor)
    num_tensors, num_fields = cursor.scalar(_U64), cursor.scalar(_U64)
    _check_count("metadata fields", num_fields, _MIN_FIELD_BYTES, len(data))
    _check_count("tensors", num_tensors, _MIN_TENSOR_BYTES, len(data))
    fields = _read_fields(cursor, num_fields)
    declared = [_read_tensor(cursor) for _ in range(num_tensors)]
    base = _aligned(cursor.position, _alignment(fields))
    return Header(fields, _place(declared, base, len(data)))


def _check_magic(cursor: Cursor) -> None:
    if cursor.take(4) != MAGIC:
        raise ModelLoadError("the file is not a GGUF file")
    version = cursor.scalar(_U32)
    if version not in VERSIONS:
        # A big-endian file shows its version with the bytes swapped.
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS
        what = "big-endian GGUF files are" if swapped else f"GGUF version {version} is"
        raise ModelLoadError(f"{what} not supported (supported: little-endian, version 2 and 3)")


def _check_count(what: str, count: int, min_bytes: int, file_size: int) -> None:
    if count > file_size // min_bytes:
        raise ModelLoadError(f"the file is truncated or corrupt: it declares {count} {what}")


def _read_fields(cursor: Cursor, count: int) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for _ in range(count):
        key = cursor.string()
        if key in fields:
            raise ModelLoadError(f"the file is corrupt: field `{key}` appears twice")
        fields[key] = _read_value(cursor, key)
    return fields


def _read_value(cursor: Cursor, key: str) -> Any:
    kind = cursor.scalar(_U32)
    if kind == _TYPE_ARRAY:
        return _read_array(cursor, key)
    if kind == _TYPE_STRING:
        return cursor.string()
    return cursor.scalar(_layout(kind, key))


def _read_array(cursor: Cursor, key: str) -> list[Any]:
    kind, count = cursor.scalar(_U32), cursor.scalar(_U64)
    if kind == _TYPE_STRING:
        return cursor.strings(count)
    return cursor.scalars(_layout(kind, key), count)


def _layout(kind: int, key: str) -> struct.Struct:
    try:
        return _SCALARS[kind]
    except KeyError:
        raise ModelLoadError(f"the file is corrupt: field `{key}` has the unknown type {kind}") from None


def _alignment(fields: dict[str, Any]) -> int:
    value = fields.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(value) is not int or value <= 0 or value & (value - 1):
        raise ModelLoadError(f"the file is corrupt: its alignment is {value!r}, not a power of two")
    return value


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def _read_tensor(cursor: Cursor) -> TensorInfo:
    name, dimensions = cursor.string(), cursor.scalar(_U32)
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise ModelLoadError(f"the file is corrupt: tensor `{name}` has {dimensions} dimensions")
    shape = tuple(reversed([cursor.scalar(_U64) for _ in range(dimensions)]))
    kind, offset = cursor.scalar(_U32), cursor.scalar(_U64)
    ggml_type = _ggml_type(name, kind)
    block, size = GGML_QUANT_SIZES[ggml_type]
    if 0 in shape or shape[-1] % block:
        raise ModelLoadError(f"the file is corrupt: tensor `{name}` of type {ggml_type.name} has shape {shape}")
    return TensorInfo(name, shape, ggml_type, offset, prod(shape) // block * size)


def _ggml_type(name: str, kind: int) -> GGMLQuantizationType:
    try:
        return GGMLQuantizationType(kind)
    except ValueError:
        raise ModelLoadError(f"tensor `{name}` has the unknown type {kind}") from None


def _place(declared: list[TensorInfo], base: int, file_size: int) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for info in declared:
        start = base + info.start
        if info.name in tensors:
            raise ModelLoadError(f"the file is corrupt: tensor `{info.name}` appears twice")
        if start + info.size > file_size:
            raise ModelLoadError(f"the file is truncated: tensor `{info.name}` reaches past its end")
        tensors[info.name] = TensorInfo(info.name, info.shape, info.ggml_type, start, info.size)
    return tensors
