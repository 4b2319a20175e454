"""How a model is dealt to several devices: what each of them gets of every tensor. Pure: knows numbers, not devices.

The layout is Megatron's (Shoeybi et al. 2019, "Megatron-LM: Training Multi-Billion Parameter Language Models Using
Model Parallelism"). A device has whole heads: their rows of query, key and value, their pages, and their columns of the
matrix after attention; and as many rows of gate and up as columns of down. So a layer is computed apart from end to
end of its two halves, and the devices' results are added up once for each.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from atomr_trio.core import ModelLoadError

from .config import ModelConfig

__all__ = ["Array", "check_shares", "fused", "split_axis"]

Array = npt.NDArray[np.float32]

_ROWS = frozenset({"qkv", "qkv_bias", "gate_up", "embed", "output"})
_COLUMNS = frozenset({"attn_out", "down"})


def split_axis(name: str, shape: Sequence[int], count: int) -> int | None:
    """Return the axis along which a tensor is dealt.

    Args:
        name: in `Params` or `LayerParams`.
        shape: of the tensor.
        count: of devices.

    Returns:
        ``None``: every device has all of it. That goes for norms, and for a vocabulary that cannot be divided evenly.
    """
    axis = 0 if name in _ROWS else 1 if name in _COLUMNS else None
    return axis if axis is not None and shape[axis] % count == 0 else None


def check_shares(config: ModelConfig, count: int) -> None:
    """Check that every device gets the same.

    Raises:
        ModelLoadError: there is something that must be divided and cannot be.
    """
    # The attention heads are a multiple of these.
    sizes = {"key-value heads": config.num_kv_heads, "feed-forward channels": config.intermediate_size}
    for name, size in sizes.items():
        if size % count:
            raise ModelLoadError(f"its {size} {name} cannot be divided evenly by tensor_parallel={count}")


def fused(parts: Sequence[Array], count: int) -> Array:
    """Stack matrices ``[out, in]``, or vectors, so that each of ``count`` equal cuts has its share of each part.

    With one cut they lie one after the other.
    """
    if len(parts) == 1:
        return parts[0]
    shares = [part.reshape(count, -1, *part.shape[1:]) for part in parts]
    return np.concatenate(shares, axis=1).reshape(-1, *parts[0].shape[1:])
