"""The transformer as pure functions over a weight tree and a paged key-value cache."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .config import DType, ModelConfig
from .linear import embedding, linear
from .rope import angles, rotate
from .weights import LayerParams, Params

__all__ = ["KV", "forward", "init_kv", "logits"]

KV = list[tuple[jax.Array, jax.Array]]
"""Per layer, keys and values: ``[num_pages, num_kv_heads, page_size, head_dim]``. Page 0 takes what is thrown away."""

# Finite on purpose: a row of -inf would make NaN, and a NaN in the garbage page times probability 0 is NaN.
_MASKED = -1e30


def init_kv(config: ModelConfig, num_pages: int, page_size: int, dtype: DType) -> KV:
    """Allocate an empty cache of ``num_pages`` pages (page 0, the garbage page, included)."""
    shape = (num_pages, config.num_kv_heads, page_size, config.head_dim)
    kind = _activation_dtype(dtype)
    return [(jnp.zeros(shape, kind), jnp.zeros(shape, kind)) for _ in range(config.num_layers)]


def _activation_dtype(dtype: DType) -> jnp.dtype:
    on_cpu = jax.default_backend() == "cpu"
    return jnp.dtype("float32" if dtype == "float32" or (dtype == "int8" and on_cpu) else "bfloat16")


def forward(
    config: ModelConfig, params: Params, kv: KV, tokens: jax.Array, positions: jax.Array, page_tables: jax.Array
) -> tuple[jax.Array, KV]:
    """Run a batch of token rows through all layers, writing their keys and values into the cache.

    Args:
        tokens: i32 ``[B, C]``.
        positions: i32 ``[B, C]``; negative marks padding, whose output is garbage.
        page_tables: i32 ``[B, W]``: the page of position p of row b is ``page_tables[b, p // page_size]``.
            Attention covers ``W * page_size`` positions. Unused entries are 0.

    Returns:
        The normed hidden states, float32 ``[B, C, hidden]``, and the new cache (donate the old one).
    """
    dtype = kv[0][0].dtype
    slots = _slots(kv[0][0].shape[2], positions, page_tables)
    rotation = angles(slots.positions[:, :, None], params["inv_freq"])
    x = embedding(tokens, params["embed"])
    new_kv: KV = []
    for layer, cache in zip(params["layers"], kv, strict=True):
        normed = _norm(config, x, layer["attn_norm"]).astype(dtype)
        attended, cache = _attention(config, layer, cache, normed, slots, rotation)
        x = x + attended
        x = x + _feed_forward(layer, _norm(config, x, layer["ffn_norm"]).astype(dtype))
        new_kv.append(cache)
    return _norm(config, x, params["final_norm"]), new_kv


def logits(config: ModelConfig, params: Params, hidden: jax.Array) -> jax.Array:
    """Return float32 ``[..., vocab]`` for hidden states ``[..., hidden]`` out of `forward`."""
    output = params.get("output", params["embed"])
    return linear(hidden, output)


class _Slots(NamedTuple):
    """Where this call's tokens are written and what they may see."""

    positions: jax.Array
    page: jax.Array
    offset: jax.Array
    tables: jax.Array


def _slots(page_size: int, positions: jax.Array, page_tables: jax.Array) -> _Slots:
    clipped = jnp.maximum(positions, 0)
    page = jnp.take_along_axis(page_tables, clipped // page_size, axis=1)
    return _Slots(clipped, jnp.where(positions < 0, 0, page), clipped % page_size, page_tables)


def _norm(config: ModelConfig, x: jax.Array, weight: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + config.rms_norm_eps) * weight


def _feed_forward(layer: LayerParams, x: jax.Array) -> jax.Array:
    gate, up = jnp.split(linear(x, layer["gate_up"]), 2, axis=-1)
    return linear(jax.nn.silu(gate) * up, layer["down"])


def _attention(
    config: ModelConfig,
    layer: LayerParams,
    cache: tuple[jax.Array, jax.Array],
    x: jax.Array,
    slots: _Slots,
    rotation: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    batch, chunk, _ = x.shape
    heads, kv_heads, dim = config.num_heads, config.num_kv_heads, config.head_dim
    qkv = linear(x, layer["qkv"]).reshape(batch, chunk, heads + 2 * kv_heads, dim)
    q, k, v = jnp.split(qkv, (heads, heads + kv_heads), axis=2)
    q, k = rotate(q, *rotation), rotate(k, *rotation)
    keys = cache[0].at[slots.page, :, slots.offset].set(k.astype(cache[0].dtype))
    values = cache[1].at[slots.page, :, slots.offset].set(v.astype(cache[1].dtype))
    attended = _attend(q.reshape(batch, chunk, kv_heads, -1, dim), keys[slots.tables], values[slots.tables], slots)
    return linear(attended.reshape(batch, chunk, heads * dim).astype(x.dtype), layer["attn_out"]), (keys, values)


def _attend(q: jax.Array, k: jax.Array, v: jax.Array, slots: _Slots) -> jax.Array:
    """Softmax attention. ``q [B, C, kv_heads, group, D]``; ``k`` and ``v [B, W, kv_heads, page, D]``."""
    batch, width, kv_heads, page, dim = k.shape
    k = k.swapaxes(1, 2).reshape(batch, kv_heads, width * page, dim)
    v = v.swapaxes(1, 2).reshape(batch, kv_heads, width * page, dim)
    scores = jnp.einsum("bchgd,bhtd->bhgct", q.astype(k.dtype), k, preferred_element_type=jnp.float32)
    visible = jnp.arange(width * page) <= slots.positions[:, :, None]
    scores = jnp.where(visible[:, None, None], scores * dim**-0.5, _MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bhgct,bhtd->bchgd", weights, v, preferred_element_type=jnp.float32)
