"""A vector that stands for a text."""

import math
import struct
from collections.abc import Iterable
from typing import Self

from attrs import field, frozen

__all__ = ["Embedding"]

_SIZE = struct.calcsize("<f")


def _check(_instance: object, _attribute: object, data: bytes) -> None:
    if not data or len(data) % _SIZE:
        raise ValueError(f"an embedding is made of float32 numbers, at least one, but these are {len(data)} bytes")
    # JSON has no others.
    if not all(map(math.isfinite, _values(data))):
        raise ValueError("an embedding is made of finite numbers")


def _values(data: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(data) // _SIZE}f", data)


@frozen
class Embedding:
    """A vector of float32 numbers. ``data`` has them as bytes, little-endian: as they travel, a fourth of the memory.

    Raises:
        ValueError: there is no number, half of one, or one that is not finite.
    """

    data: bytes = field(validator=_check, repr=False)

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Return the embedding of these numbers, rounded to float32.

        Raises:
            ValueError: there is none, or one of them is not finite, or not in float32.
        """
        numbers = list(values)
        try:
            return cls(struct.pack(f"<{len(numbers)}f", *numbers))
        except OverflowError:
            raise ValueError("an embedding is made of finite numbers") from None

    def __len__(self) -> int:
        """Count its numbers."""
        return len(self.data) // _SIZE

    @property
    def values(self) -> tuple[float, ...]:
        """Its numbers."""
        return _values(self.data)

    def unit(self) -> "Embedding":
        """Return it with the length 1; the vector of zeros as it is."""
        values = self.values
        length = math.hypot(*values)
        return Embedding.of(value / length for value in values) if length else self

    def cut(self, dimensions: int) -> "Embedding":
        """Return its first numbers as a vector of the length 1: models can be trained to be cut.

        Raises:
            ValueError: it does not have as many, or none are asked for.
        """
        if not 1 <= dimensions <= len(self):
            raise ValueError(f"an embedding of {len(self)} numbers cannot be cut to {dimensions}")
        return Embedding(self.data[: dimensions * _SIZE]).unit()
