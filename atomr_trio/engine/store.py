"""How tensors are held: rounded to a dtype, fused, and laid over the devices."""

import jax
import jax.numpy as jnp
import numpy as np
from attrs import frozen

from .config import DType
from .linear import Int8Weight, Weight, best_activations
from .sharding import ONE_DEVICE, Layout
from .shares import Array, fused, split_axis

__all__ = ["Store"]


@frozen
class Store:
    """Takes float32 tensors of the host, and holds them as the programs read them.

    Args:
        dtype: how to hold matrices.
        layout: over which devices.
    """

    dtype: DType
    layout: Layout = ONE_DEVICE

    def vector(self, name: str, *parts: Array) -> jax.Array:
        """Hold a vector, or several as one, in float32; ``name`` is its in `Params` or `LayerParams`."""
        values = fused(parts, self.layout.count)
        return self.layout.put(values, np.float32, split_axis(name, values.shape, self.layout.count))

    def matrix(self, name: str, *parts: Array) -> Weight:
        """Hold a matrix ``[out, in]``, or several of the same width as one."""
        values = fused(parts, self.layout.count)
        axis = split_axis(name, values.shape, self.layout.count)
        if self.dtype != "int8":
            return self.layout.put(values, jnp.dtype(self.dtype), axis)
        rounded, scale = _quantized(values)
        scale_axis = None if axis == 1 else axis
        return Int8Weight(
            self.layout.put(rounded, np.int8, axis),
            self.layout.put(scale, np.float32, scale_axis),
            best_activations(jax.default_backend()),
        )


# Rows of a large matrix are rounded a part at a time: what that needs beside the matrix stays small, and near.
_PART = 1 << 20


def _quantized(values: Array) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.int8]], Array]:
    rounded, scale = np.empty(values.shape, np.int8), np.empty(len(values), np.float32)
    step = max(1, _PART // values.shape[1])
    for start in range(0, len(values), step):
        part = slice(start, start + step)
        rounded[part], scale[part] = _rounded(values[part])
    return rounded, scale


def _rounded(values: Array) -> tuple[Array, Array]:
    """Whole numbers from -127 to 127, and the size of their steps by row."""
    scale = np.maximum(np.abs(values).max(axis=-1), np.finfo(np.float32).tiny * 256) / np.float32(127)
    return np.rint(values / scale[:, None]), scale
