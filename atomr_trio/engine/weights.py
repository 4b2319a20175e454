# pyright: reportUnknownMemberType=false
"""Loads a model's weights into the arrays that the step programs read."""

from collections.abc import Callable
from typing import NotRequired, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from attrs import define, field

from atomr_trio.core import ModelLoadError
from atomr_trio.formats import GgufFile

from .config import DType, ModelConfig
from .linear import Int8Weight, Weight
from .rope import inverse_frequencies

__all__ = ["LayerParams", "Params", "load_gguf_params", "random_params"]

Array = npt.NDArray[np.float32]


class LayerParams(TypedDict):
    """One transformer block; matrices are ``[out, in]``.

    ``qkv`` stacks query, key and value rows (heads in half-split rotary order); ``gate_up`` stacks gate and up.
    """

    attn_norm: jax.Array
    qkv: Weight
    attn_out: Weight
    ffn_norm: jax.Array
    gate_up: Weight
    down: Weight


class Params(TypedDict):
    """All weights. ``output`` is absent when the output matrix is the embedding. Norms and frequencies: float32."""

    embed: Weight
    layers: list[LayerParams]
    final_norm: jax.Array
    inv_freq: jax.Array
    output: NotRequired[Weight]


def load_gguf_params(
    file: GgufFile, config: ModelConfig, dtype: DType, on_progress: Callable[[int, int], None] | None = None
) -> Params:
    """Read, dequantize and fuse all weights of a GGUF file.

    Args:
        file: an open file; it may be closed afterwards.
        config: from the same file.
        dtype: how to hold the matrices.
        on_progress: called with (tensors read, tensors in all).

    Raises:
        ModelLoadError: a tensor is missing, misshapen, damaged, of a type without conversion, or not understood.
    """
    reader = _Reader(file, config, on_progress or _silent)
    params: Params = {
        "embed": _matrix(reader.take("token_embd.weight", config.vocab_size, config.hidden_size), dtype),
        "layers": [_layer(reader, config, index, dtype) for index in range(config.num_layers)],
        "final_norm": _vector(reader.take("output_norm.weight", config.hidden_size)),
        "inv_freq": _vector(inverse_frequencies(config)),
    }
    if "output.weight" in file.tensors:
        output = reader.take("output.weight", config.vocab_size, config.hidden_size)
        params["output"] = _matrix(output, dtype)
    if "rope_freqs.weight" in file.tensors:
        factors = reader.take("rope_freqs.weight", config.head_dim // 2)
        params["inv_freq"] = _vector(inverse_frequencies(config) / factors)
    reader.check_all_read()
    return params


def _silent(done: int, total: int, /) -> None:
    pass


@define
class _Reader:
    """Takes tensors by name and shape and remembers which were taken."""

    _file: GgufFile
    _config: ModelConfig
    _on_progress: Callable[[int, int], None]
    _taken: set[str] = field(factory=set[str])

    def take(self, name: str, *shape: int) -> Array:
        tensor = self._file.tensors.get(name)
        if tensor is None:
            raise ModelLoadError(f"tensor `{name}` is missing")
        if tensor.shape != shape:
            raise ModelLoadError(f"tensor `{name}` has shape {tensor.shape}, expected {shape}")
        values = tensor.dequantize()
        if not np.isfinite(np.vdot(values, values)):
            raise ModelLoadError(f"tensor `{name}` holds values that are not finite numbers")
        self._taken.add(name)
        self._on_progress(len(self._taken), len(self._file.tensors))
        return values

    def check_all_read(self) -> None:
        # A tensor we do not know (a bias, another norm) means that we would compute another model.
        unknown = [name for name in self._file.tensors if name not in self._taken]
        if unknown:
            raise ModelLoadError(f"tensor `{unknown[0]}` is not understood ({len(unknown)} such tensors)")


def _layer(reader: _Reader, config: ModelConfig, index: int, dtype: DType) -> LayerParams:
    hidden, inner = config.hidden_size, config.intermediate_size
    wide, narrow = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim

    def take(name: str, *shape: int) -> Array:
        return reader.take(f"blk.{index}.{name}.weight", *shape)

    q, k = take("attn_q", wide, hidden), take("attn_k", narrow, hidden)
    qkv = [_unpermute(q, config.head_dim), _unpermute(k, config.head_dim), take("attn_v", narrow, hidden)]
    gate_up = [take("ffn_gate", inner, hidden), take("ffn_up", inner, hidden)]
    return {
        "attn_norm": _vector(take("attn_norm", hidden)),
        "qkv": _matrix(np.concatenate(qkv), dtype),
        "attn_out": _matrix(take("attn_output", hidden, wide), dtype),
        "ffn_norm": _vector(take("ffn_norm", hidden)),
        "gate_up": _matrix(np.concatenate(gate_up), dtype),
        "down": _matrix(take("ffn_down", hidden, inner), dtype),
    }


def _unpermute(rows: Array, head_dim: int) -> Array:
    """Undo the llama family's row order: the file holds rotary pairs side by side, we rotate half against half."""
    heads = rows.reshape(-1, head_dim // 2, 2, rows.shape[-1])
    return heads.swapaxes(1, 2).reshape(rows.shape)


def _vector(values: Array) -> jax.Array:
    return jnp.array(values, jnp.float32)


def _matrix(values: Array, dtype: DType) -> Weight:
    if dtype == "int8":
        return _quantize(values)
    return jnp.array(values, jnp.dtype(dtype))


def _quantize(values: Array) -> Int8Weight:
    scale = np.maximum(np.abs(values).max(axis=-1), np.finfo(np.float32).tiny) / np.float32(127)
    rounded = np.rint(values / scale[:, None]).astype(np.int8)
    return Int8Weight(jnp.array(rounded), jnp.array(scale))


def random_params(config: ModelConfig, dtype: DType, seed: int) -> Params:
    """Make weights of a plausible scale, the same for the same seed. For tests and dry runs."""
    rng = np.random.default_rng(seed)
    hidden, inner, wide = config.hidden_size, config.intermediate_size, config.num_heads * config.head_dim

    def matrix(rows: int, columns: int) -> Weight:
        return _matrix(rng.standard_normal((rows, columns), np.float32) / np.sqrt(np.float32(columns)), dtype)

    def norm() -> jax.Array:
        return _vector(1 + rng.standard_normal(hidden, np.float32) / np.float32(8))

    def layer() -> LayerParams:
        return {
            "attn_norm": norm(),
            "qkv": matrix(config.qkv_size, hidden),
            "attn_out": matrix(hidden, wide),
            "ffn_norm": norm(),
            "gate_up": matrix(2 * inner, hidden),
            "down": matrix(hidden, inner),
        }

    params: Params = {
        "embed": matrix(config.vocab_size, hidden),
        "layers": [layer() for _ in range(config.num_layers)],
        "final_norm": norm(),
        "inv_freq": _vector(inverse_frequencies(config)),
    }
    if not config.tied_embeddings:
        params["output"] = matrix(config.vocab_size, hidden)
    return params
