"""Random weights, for tests and for benchmarks of any shape."""

import numpy as np
from attrs import define

from .config import DType, ModelConfig
from .params import Array, Params, build_params
from .sharding import ONE_DEVICE, Layout
from .store import Store

__all__ = ["random_params"]

# A prime: rows of a large matrix do not repeat. More than so many numbers are not drawn, but taken again: a
# benchmark does not see the difference, and billions of draws would take minutes.
_POOL = 1_048_573


def random_params(config: ModelConfig, dtype: DType, seed: int, layout: Layout = ONE_DEVICE) -> Params:
    """Make weights of a plausible scale, the same for the same seed."""
    return build_params(_RandomSource(config, np.random.default_rng(seed)), config, Store(dtype, layout))


@define
class _RandomSource:
    _config: ModelConfig
    _rng: np.random.Generator

    def take(self, name: str, *shape: int, layer: int | None = None) -> Array:
        if len(shape) == 2:
            return self._normal(*shape) / np.sqrt(np.float32(shape[1]))
        return np.float32(0 if name.endswith("bias") else 1) + self._normal(*shape) / np.float32(8)

    def _normal(self, *shape: int) -> Array:
        size = int(np.prod(shape))
        drawn = self._rng.standard_normal(min(size, _POOL), np.float32)
        return np.resize(drawn, shape) if size > _POOL else drawn.reshape(shape)

    def rope_factors(self, size: int) -> Array | None:
        return None

    @property
    def has_output(self) -> bool:
        return not self._config.tied_embeddings
