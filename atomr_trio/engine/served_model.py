"""What the engine needs of a model: its sizes, and two pure functions. Everything else is the same for all models."""

from typing import Any, Protocol

import jax
from attrs import frozen

from .attention import Attend
from .kv_cache import KV

__all__ = ["ModelSizes", "ServedModel"]


@frozen
class ModelSizes:
    """How large a model is.

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

    @classmethod
    def of(cls, source: Any) -> "ModelSizes":
        """Return the sizes of anything that has them as attributes: a configuration, or an `OwnModel`."""
        return cls(source.vocab_size, source.context_length, source.num_layers, source.num_kv_heads, source.head_dim)


class ServedModel(Protocol):
    """A model that the engine can batch, page and sample from.

    Its functions are traced by jax, and called from several threads. It must be hashable, and equal to another one
    only if the two compute the same: it is part of what programs are compiled for.
    """

    @property
    def sizes(self) -> ModelSizes:
        """How large it is."""
        ...

    def run(
        self,
        params: Any,
        kv: KV,
        tokens: jax.Array,
        positions: jax.Array,
        page_tables: jax.Array,
        attend: Attend,
    ) -> tuple[jax.Array, KV]:
        """Run rows of tokens through all layers; see `model.forward`."""
        ...

    def logits(self, params: Any, hidden: jax.Array) -> jax.Array:
        """Return float32 ``[..., V]`` for hidden states ``[..., hidden]`` out of ``run``."""
        ...
