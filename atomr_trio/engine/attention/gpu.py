"""The back-end for NVIDIA GPUs: a kernel that reads pages where they lie, and cuDNN for the chunks of prompts.

What neither can compute goes through `attend_pages`. Imported only where there is a GPU: Pallas is slow to import.
"""

from typing import Literal

import jax
from attrs import frozen

from atomr_trio.engine.kv_cache import LayerCache, Slots, read_pages, write_tokens

from . import flash_prefill, paged_decode
from .pages import attend_pages
from .spec import AttentionSpec

__all__ = ["GpuAttention"]


@frozen
class GpuAttention:
    """Attends to pages, see `Attend`, in the fastest way that there is for the shapes of a call.

    Checked against `reference.attend` in interpret mode, and with the ``xla`` implementation of the prefill.

    Args:
        capability: of the GPU, as (major, minor).
        interpret: run the kernel without a GPU, slowly: for tests.
        implementation: of the prefill.
    """

    capability: tuple[int, int]
    interpret: bool = False
    implementation: Literal["cudnn", "xla"] = "cudnn"

    def __call__(
        self, spec: AttentionSpec, cache: LayerCache, q: jax.Array, k: jax.Array, v: jax.Array, slots: Slots
    ) -> tuple[jax.Array, LayerCache]:
        """Attend."""
        attend = self._decode if self._decodes(cache, q) else self._prefill if self._is_flash(spec, cache, q) else None
        if attend is None:
            return attend_pages(spec, cache, q, k, v, slots)
        keys, values = write_tokens(cache[0], slots, k), write_tokens(cache[1], slots, v)
        return attend(spec, keys, values, q, slots), (keys, values)

    def _decodes(self, cache: LayerCache, q: jax.Array) -> bool:
        fits = paged_decode.supports(dtype=cache[0].dtype.name, head_dim=q.shape[-1])
        return q.shape[1] == 1 and fits and (self.interpret or paged_decode.available())

    def _is_flash(self, spec: AttentionSpec, cache: LayerCache, q: jax.Array) -> bool:
        batch, chunk, _, dim = q.shape
        return batch == 1 and flash_prefill.supports(
            dtype=cache[0].dtype.name,
            head_dim=dim,
            chunk=chunk,
            soft_cap=spec.soft_cap,
            compute_capability=self.capability,
        )

    def _decode(self, spec: AttentionSpec, keys: jax.Array, values: jax.Array, q: jax.Array, slots: Slots) -> jax.Array:
        attended = paged_decode.paged_decode(
            q[:, 0],
            keys,
            values,
            slots.tables,
            slots.positions[:, 0],
            scale=spec.scale,
            window=spec.window,
            soft_cap=spec.soft_cap,
            interpret=self.interpret,
        )
        return attended[:, None]

    def _prefill(
        self, spec: AttentionSpec, keys: jax.Array, values: jax.Array, q: jax.Array, slots: Slots
    ) -> jax.Array:
        past = read_pages(keys, slots.tables)[0], read_pages(values, slots.tables)[0]
        start = slots.positions[0, 0]
        attended = flash_prefill.flash_prefill(
            q[0], *past, start, scale=spec.scale, window=spec.window, implementation=self.implementation
        )
        return attended.astype("float32")[None]
