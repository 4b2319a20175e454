# pyright: reportUnknownMemberType=false
"""The tree of weights that the step programs read, and how it is built from any source of tensors."""

from typing import NotRequired, Protocol, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from attrs import define, frozen

from .config import DType, ModelConfig
from .linear import Int8Weight, Weight, best_activations

__all__ = ["Array", "LayerParams", "Params", "TensorSource", "build_params"]

Array = npt.NDArray[np.float32]


class LayerParams(TypedDict):
    """One transformer block; matrices are ``[out, in]``.

    ``qkv`` stacks query, key and value rows (heads in half-split rotary order); ``gate_up`` stacks gate and up. Norms
    hold the factor itself, and are float32, as biases are.
    """

    attn_norm: jax.Array
    qkv: Weight
    qkv_bias: NotRequired[jax.Array]
    q_norm: NotRequired[jax.Array]
    k_norm: NotRequired[jax.Array]
    attn_out: Weight
    out_bias: NotRequired[jax.Array]
    attn_post_norm: NotRequired[jax.Array]
    ffn_norm: jax.Array
    gate_up: Weight
    down: Weight
    ffn_post_norm: NotRequired[jax.Array]


class Params(TypedDict):
    """All weights. ``output`` is absent when the output matrix is the embedding. Norms and frequencies: float32."""

    embed: Weight
    layers: list[LayerParams]
    final_norm: jax.Array
    inv_freq: jax.Array
    local_inv_freq: NotRequired[jax.Array]
    output: NotRequired[Weight]


class TensorSource(Protocol):
    """Where tensors come from, by our names for them.

    Without a layer: ``embed``, ``final_norm``, ``output``. In one: ``attn_norm``, ``q``, ``k``, ``v``, ``attn_out``,
    each with ``_bias``, ``q_norm``, ``k_norm``, ``attn_post_norm``, ``ffn_norm``, ``gate``, ``up``, ``down``,
    ``ffn_post_norm``. Rows of query and key are in half-split rotary order, norms hold the factor itself.
    """

    def take(self, name: str, *shape: int, layer: int | None = None) -> Array:
        """Return a tensor of this shape.

        Raises:
            ModelLoadError: it is missing, misshapen or damaged.
        """
        ...

    def rope_factors(self, size: int) -> Array | None:
        """Return what the rotary frequencies are divided by, beyond the configuration; ``None``: nothing."""
        ...

    @property
    def has_output(self) -> bool:
        """The output matrix is not the embedding."""
        ...


def build_params(source: TensorSource, config: ModelConfig, dtype: DType) -> Params:
    """Take all tensors and fuse them.

    Args:
        source: of the tensors.
        config: which there are, and their shapes.
        dtype: how to hold the matrices.

    Raises:
        ModelLoadError: a tensor is missing, misshapen or damaged.
    """
    shape = config.vocab_size, config.hidden_size
    params: Params = {
        "embed": _matrix(source.take("embed", *shape), dtype),
        "layers": [_Layer(source, config, index, dtype).build() for index in range(config.num_layers)],
        "final_norm": _vector(source.take("final_norm", config.hidden_size)),
        "inv_freq": _vector(config.rope.inverse_frequencies(config.head_dim)),
    }
    if source.has_output:
        params["output"] = _matrix(source.take("output", *shape), dtype)
    factors = source.rope_factors(config.head_dim // 2)
    if factors is not None:
        params["inv_freq"] = params["inv_freq"] / _vector(factors)
    if config.local_rope is not None:
        params["local_inv_freq"] = _vector(config.local_rope.inverse_frequencies(config.head_dim))
    return params


@frozen
class _Heads:
    wide: int
    narrow: int


@define
class _Layer:
    """Takes the tensors of one layer."""

    _source: TensorSource
    _config: ModelConfig
    _index: int
    _dtype: DType

    def build(self) -> LayerParams:
        config = self._config
        hidden, inner = config.hidden_size, config.intermediate_size
        heads = _Heads(config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim)
        layer: LayerParams = {
            "attn_norm": self._norm("attn_norm", hidden),
            "qkv": self._fused(("q", heads.wide), ("k", heads.narrow), ("v", heads.narrow)),
            "attn_out": self._matrix("attn_out", hidden, heads.wide),
            "ffn_norm": self._norm("ffn_norm", hidden),
            "gate_up": self._fused(("gate", inner), ("up", inner)),
            "down": self._matrix("down", hidden, inner),
        }
        self._add_switched(layer, heads)
        return layer

    def _add_switched(self, layer: LayerParams, heads: _Heads) -> None:
        config, hidden = self._config, self._config.hidden_size
        if config.qkv_bias:
            sizes = (("q_bias", heads.wide), ("k_bias", heads.narrow), ("v_bias", heads.narrow))
            layer["qkv_bias"] = _vector(np.concatenate([self._take(name, size) for name, size in sizes]))
        if config.out_bias:
            layer["out_bias"] = _vector(self._take("attn_out_bias", hidden))
        if config.qk_norm:
            layer["q_norm"] = self._norm("q_norm", config.head_dim)
            layer["k_norm"] = self._norm("k_norm", config.head_dim)
        if config.post_norms:
            layer["attn_post_norm"] = self._norm("attn_post_norm", hidden)
            layer["ffn_post_norm"] = self._norm("ffn_post_norm", hidden)

    def _take(self, name: str, *shape: int) -> Array:
        return self._source.take(name, *shape, layer=self._index)

    def _norm(self, name: str, size: int) -> jax.Array:
        return _vector(self._take(name, size))

    def _matrix(self, name: str, rows: int, columns: int) -> Weight:
        return _matrix(self._take(name, rows, columns), self._dtype)

    def _fused(self, *parts: tuple[str, int]) -> Weight:
        taken = [self._take(name, rows, self._config.hidden_size) for name, rows in parts]
        return _matrix(np.concatenate(taken), self._dtype)


def _vector(values: Array) -> jax.Array:
    return jnp.array(values, jnp.float32)


def _matrix(values: Array, dtype: DType) -> Weight:
    if dtype == "int8":
        return _quantize(values)
    return jnp.array(values, jnp.dtype(dtype))


# Rows of a large matrix are rounded a part at a time: what that needs beside the matrix stays small, and near.
_PART = 1 << 20


def _quantize(values: Array) -> Int8Weight:
    rounded, scale = np.empty(values.shape, np.int8), np.empty(len(values), np.float32)
    step = max(1, _PART // values.shape[1])
    for start in range(0, len(values), step):
        part = slice(start, start + step)
        rounded[part], scale[part] = _rounded(values[part])
    return Int8Weight(jnp.array(rounded), jnp.array(scale), best_activations(jax.default_backend()))


def _rounded(values: Array) -> tuple[Array, Array]:
    """Whole numbers from -127 to 127, and the size of their steps by row."""
    scale = np.maximum(np.abs(values).max(axis=-1), np.finfo(np.float32).tiny * 256) / np.float32(127)
    return np.rint(values / scale[:, None]), scale
