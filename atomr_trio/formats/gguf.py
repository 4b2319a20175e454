"""GGUF files: metadata fields and quantized tensors, mapped into memory and read on demand."""

import contextlib
import mmap
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from attrs import define, field, frozen
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize

from atomr_trio.core import ModelLoadError

from ._gguf_header import TensorInfo, parse_header

__all__ = ["GgufFile", "GgufTensor"]


@frozen(eq=False)
class GgufTensor:
    """One tensor of an open file.

    Args:
        name: as in the file.
        shape: in numpy order: a linear layer is ``(out, in)``.
        ggml_type: how the values are stored.
        raw: the stored bytes, mapped read-only: uint8, the last axis is one row's bytes.
    """

    name: str
    shape: tuple[int, ...]
    ggml_type: GGMLQuantizationType
    raw: npt.NDArray[np.uint8] = field(repr=False)

    def dequantize(self) -> npt.NDArray[np.float32]:
        """Return the values as a float32 array of ``shape``.

        Raises:
            ModelLoadError: the type has no conversion.
        """
        try:
            # Damaged scales overflow; whoever uses the values decides what that means.
            with np.errstate(all="ignore"):
                return dequantize(self.raw, self.ggml_type).reshape(self.shape)
        except NotImplementedError:
            message = f"tensor `{self.name}` has type {self.ggml_type.name}, which cannot be converted"
            raise ModelLoadError(message) from None


@define(eq=False)
class GgufFile:
    """An open GGUF file; a context manager. Build it with `open`.

    Args:
        fields: metadata by key: numbers, booleans, strings, and lists of these.
        tensors: by name, in the order of the file.
    """

    fields: dict[str, Any] = field(repr=False)
    tensors: dict[str, GgufTensor] = field(repr=False)
    _map: mmap.mmap = field(repr=False)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Map a file and parse its header.

        Raises:
            ModelLoadError: it cannot be read, is not a GGUF, is truncated or corrupt, or of an unknown version.
        """
        mapped = _map_file(Path(path))
        try:
            header = parse_header(mapped)
        except BaseException:
            mapped.close()
            raise
        return cls(header.fields, {name: _tensor(mapped, info) for name, info in header.tensors.items()}, mapped)

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
            if os.fstat(file.fileno()).st_size == 0:
                raise ModelLoadError("the file is empty")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise ModelLoadError(f"the file cannot be read: {error.strerror}") from None


def _tensor(mapped: mmap.mmap, info: TensorInfo) -> GgufTensor:
    flat = np.frombuffer(mapped, np.uint8, info.size, info.start)
    return GgufTensor(info.name, info.shape, info.ggml_type, flat.reshape(info.raw_shape))
