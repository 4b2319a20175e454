"""A bounds-checked reader of little-endian binary data."""

import mmap
import struct
from typing import Any

import numpy as np
from attrs import define

from atomr_trio.core import ModelLoadError

_U64 = struct.Struct("<Q")


@define
class Cursor:
    """Reads values one after the other; anything past the end is a `ModelLoadError`, never a short value."""

    _data: bytes | mmap.mmap
    position: int = 0

    def take(self, size: int) -> bytes:
        """Return the next ``size`` bytes.

        Raises:
            ModelLoadError: fewer are left.
        """
        start, stop = self.position, self.position + size
        if stop > len(self._data):
            raise _truncated()
        self.position = stop
        return self._data[start:stop]

    def scalar(self, layout: struct.Struct) -> Any:
        """Return the next value of a one-value struct."""
        return layout.unpack(self.take(layout.size))[0]

    def scalars(self, layout: struct.Struct, count: int) -> list[Any]:
        """Return the next ``count`` values of a one-value struct."""
        raw = self.take(layout.size * count)
        return np.frombuffer(raw, dtype=np.dtype(layout.format)).tolist()

    def string(self) -> str:
        """Return the next string: its length as u64, then UTF-8."""
        return self.strings(1)[0]

    def strings(self, count: int) -> list[str]:
        """Return the next ``count`` strings.

        A vocabulary has hundreds of thousands of them, so this is one tight loop.
        """
        data, end, at = self._data, len(self._data), self.position
        if count > (end - at) // _U64.size:
            raise _truncated()
        unpack, result = _U64.unpack_from, list[str]()
        try:
            for _ in range(count):
                start = at + 8
                at = start + unpack(data, at)[0]
                if at > end:
                    raise _truncated()
                result.append(data[start:at].decode())
        except struct.error:
            raise _truncated() from None
        except UnicodeDecodeError:
            raise ModelLoadError("the file is corrupt: a text in its header is not UTF-8") from None
        self.position = at
        return result


def _truncated() -> ModelLoadError:
    return ModelLoadError("the file is truncated or corrupt: its header reaches past the end of the file")
