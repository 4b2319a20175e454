"""What the engine needs of a model: its sizes, and two pure functions. Everything else is the same for all models."""

from typing import Any, Protocol

import jax

from .attention import Attend
from .kv_cache import KV

__all__ = ["ServedModel"]


class ServedModel(Protocol):
    """A model that the engine can batch, page and sample from.

    Its functions are traced by jax, and called from several threads. It must be hashable, and equal to another one
    only if the two compute the same: it is part of what programs are compiled for.
    """

    @property
    def vocab_size(self) -> int:
        """Tokens that there are, ``V``."""
        ...

    @property
    def context_length(self) -> int:
        """Most positions of a sequence."""
        ...

    @property
    def num_layers(self) -> int:
        """Layers that have a cache."""
        ...

    @property
    def num_kv_heads(self) -> int:
        """Heads of keys and values in each of them."""
        ...

    @property
    def head_dim(self) -> int:
        """Width of such a head."""
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
