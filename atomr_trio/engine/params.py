# pyright: reportUnknownMemberType=false
"""The tree of weights that the step programs read, and how it is built from any source of tensors."""

from typing import NotRequired, Protocol, TypedDict

import jax
import numpy as np
from attrs import define, frozen

from .config import ModelConfig
from .linear import Weight
from .shares import Array as Array
from .store import Store

__all__ = ["Array", "LayerParams", "Params", "TensorSource", "build_params"]


class LayerParams(TypedDict):
    """One transformer block; matrices are ``[out, in]``.

    ``qkv`` stacks query, key and value rows (heads in half-split rotary order); ``gate_up`` stacks gate and up; both
    device by device, if the model is dealt to several. Norms hold the factor itself, and are float32, as biases are.
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


def build_params(source: TensorSource, config: ModelConfig, store: Store) -> Params:
    """Take all tensors and fuse them.

    Args:
        source: of the tensors.
        config: which there are, and their shapes.
        store: holds them.

    Raises:
        ModelLoadError: a tensor is missing, misshapen or damaged.
    """
    shape = config.vocab_size, config.hidden_size
    params: Params = {
        "embed": store.matrix("embed", source.take("embed", *shape)),
        "layers": [_Layer(source, config, index, store).build() for index in range(config.num_layers)],
        "final_norm": store.vector("final_norm", source.take("final_norm", config.hidden_size)),
        "inv_freq": store.vector("inv_freq", _frequencies(source, config)),
    }
    if source.has_output:
        params["output"] = store.matrix("output", source.take("output", *shape))
    if config.local_rope is not None:
        local = config.local_rope.inverse_frequencies(config.head_dim)
        params["local_inv_freq"] = store.vector("local_inv_freq", local)
    return params


def _frequencies(source: TensorSource, config: ModelConfig) -> Array:
    found, factors = config.rope.inverse_frequencies(config.head_dim), source.rope_factors(config.head_dim // 2)
    return found if factors is None else found / np.asarray(factors, np.float32)


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
    _store: Store

    def build(self) -> LayerParams:
        config = self._config
        hidden, inner = config.hidden_size, config.intermediate_size
        heads = _Heads(config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim)
        layer: LayerParams = {
            "attn_norm": self._norm("attn_norm", hidden),
            "qkv": self._fused("qkv", ("q", heads.wide), ("k", heads.narrow), ("v", heads.narrow)),
            "attn_out": self._matrix("attn_out", hidden, heads.wide),
            "ffn_norm": self._norm("ffn_norm", hidden),
            "gate_up": self._fused("gate_up", ("gate", inner), ("up", inner)),
            "down": self._matrix("down", hidden, inner),
        }
        self._add_switched(layer, heads)
        return layer

    def _add_switched(self, layer: LayerParams, heads: _Heads) -> None:
        config, hidden = self._config, self._config.hidden_size
        if config.qkv_bias:
            sizes = (("q_bias", heads.wide), ("k_bias", heads.narrow), ("v_bias", heads.narrow))
            layer["qkv_bias"] = self._store.vector("qkv_bias", *[self._take(name, size) for name, size in sizes])
        if config.out_bias:
            layer["out_bias"] = self._store.vector("out_bias", self._take("attn_out_bias", hidden))
        if config.qk_norm:
            layer["q_norm"] = self._norm("q_norm", config.head_dim)
            layer["k_norm"] = self._norm("k_norm", config.head_dim)
        if config.post_norms:
            layer["attn_post_norm"] = self._norm("attn_post_norm", hidden)
            layer["ffn_post_norm"] = self._norm("ffn_post_norm", hidden)

    def _take(self, name: str, *shape: int) -> Array:
        return self._source.take(name, *shape, layer=self._index)

    def _norm(self, name: str, size: int) -> jax.Array:
        return self._store.vector(name, self._take(name, size))

    def _matrix(self, name: str, rows: int, columns: int) -> Weight:
        return self._store.matrix(name, self._take(name, rows, columns))

    def _fused(self, name: str, *parts: tuple[str, int]) -> Weight:
        taken = [self._take(part, rows, self._config.hidden_size) for part, rows in parts]
        return self._store.matrix(name, *taken)
