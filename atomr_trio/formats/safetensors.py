"""Safetensors files: an eight-byte length, a JSON header, and raw tensors, mapped into memory and read on demand."""

import contextlib
import json
import mmap
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from attrs import define, field, frozen

from atomr_trio.core import ModelLoadError

__all__ = ["SafetensorsFile", "SafetensorsTensor"]

_MAX_HEADER = 100_000_000
_ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("I64", "U64", "F64"), 8),
}
_FLOATS = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}


@frozen(eq=False)
class SafetensorsTensor:
    """One tensor of an open file.

    Args:
        name: as in the file.
        shape: a linear layer is ``(out, in)``.
        kind: how the values are stored: ``BF16``, ``F32``, …
        raw: the stored bytes, mapped read-only.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    raw: npt.NDArray[np.uint8] = field(repr=False)

    def widen(self) -> npt.NDArray[np.float32]:
        """Return the values as a new float32 array of ``shape``.

        Raises:
            ModelLoadError: they are not plain floating point numbers.
        """
        if self.kind == "BF16":
            # A bfloat16 is the upper half of a float32.
            return (self.raw.view("<u2").astype(np.uint32) << 16).view(np.float32).reshape(self.shape)
        if self.kind not in _FLOATS:
            raise ModelLoadError(f"tensor `{self.name}` has type {self.kind}, which cannot be converted")
        with np.errstate(over="ignore"):
            return self.raw.view(_FLOATS[self.kind]).astype(np.float32).reshape(self.shape)


@define(eq=False)
class SafetensorsFile:
    """An open safetensors file; a context manager. Build it with `open`. ``tensors``: by name."""

    tensors: dict[str, SafetensorsTensor] = field(repr=False)
    _map: mmap.mmap = field(repr=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Map a file and read its header.

        Raises:
            ModelLoadError: it cannot be read, is not a safetensors file, or is truncated or corrupt.
        """
        mapped = _map_file(Path(path))
        try:
            start, header = _header(mapped)
            data = memoryview(mapped)[start:]
            found = {name: _tensor(name, about, data) for name, about in header.items() if name != "__metadata__"}
        except BaseException:
            with contextlib.suppress(BufferError):
                mapped.close()
            raise
        return cls(found, mapped)

    def close(self) -> None:
        """Forget the tensors and unmap the file. A ``raw`` array still held elsewhere keeps the mapping alive."""
        self.tensors.clear()
        with contextlib.suppress(BufferError):
            self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _map_file(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < 8:
                raise ModelLoadError(f"`{path.name}` is not a safetensors file")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelLoadError(f"`{path.name}` cannot be read: {error.strerror}") from None


def _header(mapped: mmap.mmap) -> tuple[int, Mapping[str, Any]]:
    """Return where the tensors begin, and what the file says of each."""
    size = int.from_bytes(mapped[:8], "little")
    if size > min(_MAX_HEADER, len(mapped) - 8):
        raise ModelLoadError("the file is truncated, or is not a safetensors file")
    try:
        header = json.loads(mapped[8 : 8 + size])
    except (ValueError, RecursionError):
        raise ModelLoadError("the file is corrupt, or is not a safetensors file") from None
    if not isinstance(header, dict):
        raise ModelLoadError("the file is corrupt: its header is not an object")
    return 8 + size, header  # pyright: ignore[reportUnknownVariableType]


def _tensor(name: str, about: Any, data: memoryview) -> SafetensorsTensor:
    match about:
        case {"dtype": str(kind), "shape": [*shape], "data_offsets": [int(start), int(stop)]}:
            pass
        case _:
            raise ModelLoadError(f"the file is corrupt: tensor `{name}` is not described")
    if kind not in _ITEM_BYTES:
        raise ModelLoadError(f"tensor `{name}` has the unknown type {kind[:20]}")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ModelLoadError(f"the file is corrupt: tensor `{name}` has no proper shape")
    if not 0 <= start <= stop <= len(data):
        raise ModelLoadError(f"the file is truncated: tensor `{name}` reaches past its end")
    if prod(shape) * _ITEM_BYTES[kind] != stop - start:
        raise ModelLoadError(f"the file is corrupt: the size of tensor `{name}` is not that of its shape")
    return SafetensorsTensor(name, tuple(shape), kind, np.frombuffer(data[start:stop], np.uint8))
