# pyright: reportUnknownMemberType=false
"""The transformer as pure functions over a weight tree and a paged key-value cache.

Layers are unrolled: each reads its own weight arrays and updates its own pair of cache arrays in place.
"""

import jax
import jax.numpy as jnp

from .config import ModelConfig
from .kv_cache import KV as KV
from .kv_cache import LayerCache, Slots, activation_dtype, find_slots, read_pages, write_tokens
from .kv_cache import init_kv as init_kv
from .linear import embedding, linear
from .rope import angles, rotate
from .weights import LayerParams, Params

__all__ = ["KV", "forward", "init_kv", "logits"]


def forward(
    config: ModelConfig, params: Params, kv: KV, tokens: jax.Array, positions: jax.Array, page_tables: jax.Array
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

    Returns:
        The normed hidden states, float32 ``[B, C, hidden]``, and the new cache.
    """
    dtype = activation_dtype(kv)
    slots = find_slots(kv, positions, page_tables)
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
    """Return float32 ``[..., vocab]`` for hidden states float32 ``[..., hidden]`` out of `forward`."""
    return linear(hidden, params.get("output", params["embed"]))


def _norm(config: ModelConfig, x: jax.Array, weight: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + config.rms_norm_eps) * weight


def _feed_forward(layer: LayerParams, x: jax.Array) -> jax.Array:
    gate, up = jnp.split(linear(x, layer["gate_up"]), 2, axis=-1)
    # silu(gate) * up, divided last: XLA:CPU repeats cheap operations, but not a division, for every output of a
    # one-row product that follows.
    return linear(gate * up / (1 + jnp.exp(-gate)), layer["down"])


def _attention(
    config: ModelConfig,
    layer: LayerParams,
    cache: LayerCache,
    x: jax.Array,
    slots: Slots,
    rotation: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, LayerCache]:
    batch, chunk, _ = x.shape
    heads, kv_heads = config.num_heads, config.num_kv_heads
    qkv = linear(x, layer["qkv"]).reshape(batch, chunk, heads + 2 * kv_heads, config.head_dim)
    q, k, v = jnp.split(qkv, (heads, heads + kv_heads), axis=2)
    keys = write_tokens(cache[0], slots, rotate(k, *rotation))
    values = write_tokens(cache[1], slots, v)
    attended = _attend(
        rotate(q, *rotation), read_pages(keys, slots.tables), read_pages(values, slots.tables), slots.positions
    )
    return linear(attended.astype(x.dtype), layer["attn_out"]), (keys, values)


def _attend(q: jax.Array, k: jax.Array, v: jax.Array, positions: jax.Array) -> jax.Array:
    """Softmax attention: ``q [B, C, heads, D]`` over ``k, v [B, kv_heads, T, D]``; returns ``[B, C, heads * D]``.

    The query heads of one group are further rows of one product, and the softmax is divided after the second
    product, where the rows are short: a third of the time of the textbook order on a CPU.
    """
    batch, chunk, heads, dim = q.shape
    kv_heads, time = k.shape[1:3]
    rows = q.reshape(batch, chunk, kv_heads, -1, dim).transpose(0, 2, 3, 1, 4) * dim**-0.5
    scores = _batched(rows.reshape(batch, kv_heads, -1, dim), k, 3).reshape(batch, kv_heads, -1, chunk, time)
    # Position 0 is visible to every row, padding included, so no row is masked as a whole: that would make NaN,
    # which padding would store in the garbage page, where a probability of 0 does not stop it.
    visible = jnp.arange(time) <= positions[:, :, None]
    scores = jnp.where(visible[:, None, None], scores, -jnp.inf)
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    mixed = _batched(weights.reshape(batch, kv_heads, -1, time), v, 2).reshape(batch, kv_heads, -1, chunk, dim)
    normed = mixed / jnp.sum(weights, axis=-1, keepdims=True)
    return normed.transpose(0, 3, 1, 2, 4).reshape(batch, chunk, heads * dim)


def _batched(a: jax.Array, b: jax.Array, axis: int) -> jax.Array:
    """Contract the last axis of ``a`` with ``axis`` of ``b`` over the two batch axes, to float32."""
    dimensions = (((3,), (axis,)), ((0, 1), (0, 1)))
    precision = jax.lax.Precision.HIGHEST if b.dtype == jnp.float32 else None
    return jax.lax.dot_general(
        a.astype(b.dtype), b, dimensions, precision=precision, preferred_element_type=jnp.float32
    )
