"""A model of its own kind, written against the public interface alone: GPT-2's, with one head of keys and values."""

import jax
import jax.numpy as jnp
from attrs import frozen

from atomr_trio.engine.own_model import Cache

WIDTH, HEADS, LAYERS, VOCAB, CONTEXT = 32, 4, 3, 64, 96


@frozen
class ToyGpt:
    """Learned positions, LayerNorm, multi-query attention, GELU, biases: nothing that the built-in decoder has."""

    vocab_size: int = VOCAB
    context_length: int = CONTEXT
    num_layers: int = LAYERS
    num_kv_heads: int = 1
    head_dim: int = WIDTH // HEADS

    def forward(self, params, tokens, positions, cache: Cache):
        x = params["tokens"][tokens] + params["positions"][positions]
        for index, block in enumerate(params["blocks"]):
            x = x + self._attend(block, norm(x, block["norm_1"]), index, cache)
            x = x + jax.nn.gelu(norm(x, block["norm_2"]) @ block["up"] + block["bias"]) @ block["down"]
        return norm(x, params["norm"])

    def logits(self, params, hidden):
        return hidden @ params["tokens"].T

    def _attend(self, block, x, index, cache):
        q = (x @ block["q"]).reshape(*x.shape[:2], HEADS, self.head_dim)
        k, v = ((x @ block[name])[:, :, None, :] for name in ("k", "v"))
        return cache.attend(index, q, k, v) @ block["out"]


def norm(x, weight):
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + 1e-5) * weight


def random_weights(seed=0):
    keys = iter(jax.random.split(jax.random.key(seed), 100))

    def matrix(*shape):
        return jax.random.normal(next(keys), shape) * shape[0] ** -0.5

    def block():
        narrow = WIDTH // HEADS
        return {
            "norm_1": jnp.ones(WIDTH),
            "q": matrix(WIDTH, WIDTH) * 3,
            "k": matrix(WIDTH, narrow),
            "v": matrix(WIDTH, narrow),
            "out": matrix(WIDTH, WIDTH),
            "norm_2": jnp.ones(WIDTH),
            "up": matrix(WIDTH, 4 * WIDTH),
            "bias": matrix(1, 4 * WIDTH)[0],
            "down": matrix(4 * WIDTH, WIDTH),
        }

    blocks = [block() for _ in range(LAYERS)]
    embeddings = {"tokens": matrix(VOCAB, WIDTH) * 3, "positions": matrix(CONTEXT, WIDTH)}
    return {**embeddings, "blocks": blocks, "norm": jnp.ones(WIDTH)}


def make():
    """What `load_format="python"` calls."""
    return ToyGpt(), random_weights()
