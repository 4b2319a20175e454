# pyright: reportUnknownMemberType=false
"""The transformer as pure functions over a weight tree and a paged key-value cache.

Layers are unrolled: each reads its own weight arrays and updates its own pair of cache arrays in place.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from attrs import frozen

from .attention import Attend, AttentionSpec, attend_pages
from .config import ModelConfig
from .kv_cache import KV as KV
from .kv_cache import LayerCache, Slots, activation_dtype, find_slots
from .kv_cache import init_kv as init_kv
from .linear import embedding, linear
from .rope import angles, rotate
from .served_model import ModelSizes
from .sharding import ONE_DEVICE, Layout
from .weights import LayerParams, Params

__all__ = ["KV", "Decoder", "forward", "init_kv", "logits"]


def forward(
    config: ModelConfig,
    params: Params,
    kv: KV,
    tokens: jax.Array,
    positions: jax.Array,
    page_tables: jax.Array,
    attend: Attend = attend_pages,
    layout: Layout = ONE_DEVICE,
) -> tuple[jax.Array, KV]:
    """Run rows of tokens through all layers, writing their keys and values into the cache.

    A token sees every position up to its own, of its own row; so all earlier positions must have been written
    before, or be in this call.

    Args:
        config: the model (static).
        params: its weights.
        kv: the cache; donate it.
        tokens: i32 ``[B, C]``.
        positions: i32 ``[B, C]``; negative marks padding, whose output is garbage.
        page_tables: i32 ``[B, W]``: the page of position p of row b is ``page_tables[b, p // page_size]``.
            Attention covers ``W * page_size`` positions. Unused entries are 0.
        attend: the back-end of attention (static); it knows what ``kv`` is.
        layout: where weights and cache lie (static).

    Returns:
        The normed hidden states, float32 ``[B, C, hidden]``, and the new cache.
    """
    slots = find_slots(kv, positions, page_tables)
    tables = _rotations(config, params, slots.positions[:, :, None])
    x = _embed(config, params, tokens, activation_dtype(kv))
    new_kv: KV = []
    attend = layout.attend(attend)
    for index, (layer, cache) in enumerate(zip(params["layers"], kv, strict=True)):
        window = config.window(index)
        x, cache = _one_block(_Kind(config, window, attend, layout.count), layer, cache, x, slots, tables[window > 0])
        new_kv.append(cache)
    return _norm(config, x, params["final_norm"]), new_kv


def logits(config: ModelConfig, params: Params, hidden: jax.Array) -> jax.Array:
    """Return float32 ``[..., vocab]`` for hidden states float32 ``[..., hidden]`` out of `forward`."""
    return _capped(linear(hidden, params.get("output", params["embed"])), config.final_soft_cap)


@frozen
class Decoder:
    """The transformer as the engine serves it."""

    config: ModelConfig
    layout: Layout = ONE_DEVICE

    @property
    def sizes(self) -> ModelSizes:
        """How large it is."""
        return ModelSizes.of(self.config)

    def run(
        self,
        params: Params,
        kv: KV,
        tokens: jax.Array,
        positions: jax.Array,
        page_tables: jax.Array,
        attend: Attend,
    ) -> tuple[jax.Array, KV]:
        """Run `forward`."""
        return forward(self.config, params, kv, tokens, positions, page_tables, attend, self.layout)

    def logits(self, params: Params, hidden: jax.Array) -> jax.Array:
        """Run `logits`."""
        return logits(self.config, params, hidden)


class _Kind(NamedTuple):
    """What makes two blocks the same code.

    Args:
        config: the model.
        window: positions that a token sees; 0 is all.
        attend: the back-end of attention.
        shares: how many devices fused weights are dealt to.
    """

    config: ModelConfig
    window: int
    attend: Attend
    shares: int


Rotation = tuple[jax.Array, jax.Array]


def _rotations(config: ModelConfig, params: Params, positions: jax.Array) -> tuple[Rotation, Rotation]:
    """Cosine and sine for layers without a window, and for those with one."""
    table = angles(positions, params["inv_freq"], config.rope.amplitude)
    if config.local_rope is None or "local_inv_freq" not in params:
        return table, table
    return table, angles(positions, params["local_inv_freq"], config.local_rope.amplitude)


def _embed(config: ModelConfig, params: Params, tokens: jax.Array, dtype: jnp.dtype) -> jax.Array:
    x = embedding(tokens, params["embed"])
    if not config.scaled_embedding:
        return x
    # The checkpoints were trained with the factor rounded to their dtype.
    return x * jnp.float32(np.float32(config.hidden_size**0.5).astype(dtype))


def _block(
    kind: _Kind, layer: LayerParams, cache: LayerCache, x: jax.Array, slots: Slots, rotation: Rotation
) -> tuple[jax.Array, LayerCache]:
    config, dtype = kind.config, activation_dtype([cache])
    normed = _norm(config, x, layer["attn_norm"]).astype(dtype)
    attended, cache = _attention(kind, layer, cache, normed, slots, rotation)
    x = x + _post_norm(config, attended, layer.get("attn_post_norm"))
    fed = _feed_forward(kind, layer, _norm(config, x, layer["ffn_norm"]).astype(dtype))
    return x + _post_norm(config, fed, layer.get("ffn_post_norm")), cache


# Most layers have the same shapes: jitted, a kind of block is traced and lowered once, not once a layer.
_one_block: Callable[[_Kind, LayerParams, LayerCache, jax.Array, Slots, Rotation], tuple[jax.Array, LayerCache]] = (
    jax.jit(_block, static_argnums=0)
)


def _norm(config: ModelConfig, x: jax.Array, weight: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + config.rms_norm_eps) * weight


def _post_norm(config: ModelConfig, x: jax.Array, weight: jax.Array | None) -> jax.Array:
    return x if weight is None else _norm(config, x.astype(jnp.float32), weight)


def _feed_forward(kind: _Kind, layer: LayerParams, x: jax.Array) -> jax.Array:
    config = kind.config
    gate, up = _unfused(linear(x, layer["gate_up"]), kind.shares, config.intermediate_size)
    # gate * sigmoid(…) * up, divided last: XLA:CPU repeats cheap operations, but not a division, for every output of
    # a one-row product that follows. gelu is sigmoid's, too: 0.5 * (1 + tanh(z)) = sigmoid(2 * z).
    bent = gate if config.activation == "silu" else _GELU * (gate + 0.044715 * gate * gate * gate)
    return linear(gate * up / (1 + jnp.exp(-bent)), layer["down"])


_GELU = 2 * math.sqrt(2 / math.pi)


def _unfused(x: jax.Array, shares: int, *cuts: int) -> list[jax.Array]:
    """Cut ``[B, C, size, …]`` at ``cuts`` of its third axis, each of whose ``shares`` has its part of every piece."""
    if shares == 1:
        return jnp.split(x, cuts, axis=2)
    batch, chunk, _, *rest = x.shape
    dealt = x.reshape(batch, chunk, shares, -1, *rest)
    pieces = jnp.split(dealt, [cut // shares for cut in cuts], axis=3)
    return [piece.reshape(batch, chunk, -1, *rest) for piece in pieces]


def _biased(x: jax.Array, bias: jax.Array | None) -> jax.Array:
    return x if bias is None else x + bias.astype(x.dtype)


def _attention(
    kind: _Kind, layer: LayerParams, cache: LayerCache, x: jax.Array, slots: Slots, rotation: Rotation
) -> tuple[jax.Array, LayerCache]:
    batch, chunk, _ = x.shape
    config = kind.config
    heads, kv_heads = config.num_heads, config.num_kv_heads
    qkv = _biased(linear(x, layer["qkv"]), layer.get("qkv_bias")).reshape(batch, chunk, -1, config.head_dim)
    q, k, v = _unfused(qkv, kind.shares, heads, heads + kv_heads)
    if "q_norm" in layer and "k_norm" in layer:
        q = _norm(config, q.astype(jnp.float32), layer["q_norm"])
        k = _norm(config, k.astype(jnp.float32), layer["k_norm"])
    spec = AttentionSpec(config.score_scale, kind.window, config.attention_soft_cap)
    attended, cache = kind.attend(spec, cache, rotate(q, *rotation), rotate(k, *rotation), v, slots)
    return _biased(linear(attended.astype(x.dtype), layer["attn_out"]), layer.get("out_bias")), cache


def _capped(x: jax.Array, cap: float | None) -> jax.Array:
    return x if cap is None else cap * jnp.tanh(x / cap)
