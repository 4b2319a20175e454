"""Takes tensors out of an open file, checks each, and remembers which were taken."""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
from attrs import define, field

from atomr_trio.core import ModelLoadError

from .params import Array

__all__ = ["OnProgress", "Reader"]

OnProgress = Callable[[int, int], None]
"""Called with (tensors read, tensors in all)."""


class _Tensor(Protocol):
    @property
    def shape(self) -> tuple[int, ...]: ...


@define
class Reader:
    """Reads tensors by the file's own names.

    Args:
        tensors: of the file.
        values: makes float32 of a tensor.
        on_progress: is told of each that was read.
    """

    tensors: Mapping[str, _Tensor]
    _values: Callable[[str], Array]
    _on_progress: OnProgress | None = None
    _taken: set[str] = field(factory=set[str])

    def take(self, name: str, *shape: int) -> Array:
        """Return a tensor's values.

        Raises:
            ModelLoadError: it is missing, misshapen or damaged.
        """
        tensor = self.tensors.get(name)
        if tensor is None:
            raise ModelLoadError(f"tensor `{name}` is missing")
        if tensor.shape != shape:
            raise ModelLoadError(f"tensor `{name}` has shape {tensor.shape}, expected {shape}")
        values = self._values(name)
        if not np.isfinite(np.vdot(values, values)):
            raise ModelLoadError(f"tensor `{name}` holds values that are not finite numbers")
        self._taken.add(name)
        if self._on_progress is not None:
            self._on_progress(len(self._taken), len(self.tensors))
        return values

    def check_all_read(self, ignored: Callable[[str], bool] = lambda name: False) -> None:
        """Make sure that nothing is left.

        Raises:
            ModelLoadError: a tensor that we do not know (a bias, another norm): we would compute another model.
        """
        unknown = [name for name in self.tensors if name not in self._taken and not ignored(name)]
        if unknown:
            raise ModelLoadError(f"tensor `{unknown[0]}` is not understood ({len(unknown)} such tensors)")
