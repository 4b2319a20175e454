"""Models that users write: pure functions and a tree of weights, served like any other.

A function without arguments returns an `OwnModel` and its weights; the engine's settings name it
(``load_format="python"``, ``model="package.module:function"``), and the device process imports it.
"""

import importlib
from collections.abc import Callable
from typing import Any, Protocol, cast

import jax
from attrs import define, field, frozen

from atomr_trio.core import ModelLoadError

from .attention import Attend, AttentionSpec
from .kv_cache import KV, Slots, find_slots
from .served_model import ModelSizes

__all__ = ["Cache", "OwnDecoder", "OwnModel", "load_own_model"]


@define
class Cache:
    """The keys and values of a step's rows, as a model sees them: one call of ``attend`` for each layer."""

    _layers: KV
    _slots: Slots
    _attend: Attend
    _done: dict[int, tuple[jax.Array, ...]] = field(init=False, factory=dict[int, tuple[jax.Array, ...]])

    def attend(
        self,
        layer: int,
        q: jax.Array,
        k: jax.Array,
        v: jax.Array,
        *,
        scale: float | None = None,
        window: int = 0,
        soft_cap: float | None = None,
    ) -> jax.Array:
        """Store the keys and values of these tokens, and let their queries attend to all up to their own position.

        Args:
            layer: whose cache; each once a step.
            q: ``[B, C, heads, head_dim]``, any float dtype; ``heads`` is a multiple of ``num_kv_heads``. Positions are
                the model's business: rotate queries and keys before.
            k: ``[B, C, num_kv_heads, head_dim]``.
            v: the same.
            scale: of the scores; ``None``: ``head_dim ** -0.5``.
            window: positions that a token sees, its own included; 0 is all.
            soft_cap: bends the scores to stay within this.

        Returns:
            float32 ``[B, C, heads * head_dim]``.

        Raises:
            ValueError: the layer is not there, or had its turn.
        """
        if layer in self._done or not 0 <= layer < len(self._layers):
            raise ValueError(f"layer {layer}: each of {len(self._layers)} layers attends once a step")
        spec = AttentionSpec(q.shape[-1] ** -0.5 if scale is None else scale, window, soft_cap)
        attended, self._done[layer] = self._attend(spec, self._layers[layer], q, k, v, self._slots)
        return attended

    @property
    def layers(self) -> KV:
        """The cache after the step; a layer that nobody attended with is as it was."""
        return [self._done.get(index, layer) for index, layer in enumerate(self._layers)]


class OwnModel(Protocol):
    """What a user writes. All values are fixed for the life of the model; as `ModelSizes` has them.

    Args:
        vocab_size: tokens that there are, ``V``.
        context_length: most positions of a sequence.
        num_layers: layers that have a cache.
        num_kv_heads: heads of keys and values in each of them.
        head_dim: width of such a head.
    """

    vocab_size: int
    context_length: int
    num_layers: int
    num_kv_heads: int
    head_dim: int

    def forward(self, params: Any, tokens: jax.Array, positions: jax.Array, cache: Cache) -> jax.Array:
        """Run rows of tokens through the layers.

        Args:
            params: the weights.
            tokens: i32 ``[B, C]``.
            positions: i32 ``[B, C]``, not negative. Padding is at position 0, and what it computes is thrown away.
            cache: for each layer's ``attend``.

        Returns:
            ``[B, C, hidden]``, any float dtype.
        """
        ...

    def logits(self, params: Any, hidden: jax.Array) -> jax.Array:
        """Return ``[..., V]`` for ``[..., hidden]``."""
        ...


@frozen(eq=False)
class OwnDecoder:
    """Makes an `OwnModel` a `ServedModel`."""

    model: OwnModel

    @property
    def sizes(self) -> ModelSizes:
        """How large it is."""
        return ModelSizes.of(self.model)

    def run(
        self,
        params: Any,
        kv: KV,
        tokens: jax.Array,
        positions: jax.Array,
        page_tables: jax.Array,
        attend: Attend,
    ) -> tuple[jax.Array, KV]:
        """Run rows of tokens through the model; see `ServedModel`."""
        slots = find_slots(kv, positions, page_tables)
        cache = Cache(kv, slots, attend)
        hidden = self.model.forward(params, tokens, slots.positions, cache)
        return hidden.astype("float32"), cache.layers

    def logits(self, params: Any, hidden: jax.Array) -> jax.Array:
        """Return float32 logits."""
        return self.model.logits(params, hidden).astype("float32")


def load_own_model(name: str) -> tuple[OwnModel, Any]:
    """Import and call ``package.module:function``, which returns a model and its tree of weights.

    Raises:
        ModelLoadError: there is no such function, or it failed.
    """
    module, _, function = name.partition(":")
    try:
        make = cast("Callable[[], tuple[OwnModel, Any]]", getattr(importlib.import_module(module), function))
        return make()
    except Exception as error:
        raise ModelLoadError(f"the model `{name}` cannot be made: {type(error).__name__}") from error
