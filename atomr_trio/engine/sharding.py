# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""Where the arrays of a model lie: whole on one device, or dealt to several of one host as `shares` says.

Programs are written for one device; XLA makes them one for each from where their arguments lie, and adds what has to
be sent. Attention alone is split by hand: heads have nothing to tell each other, and its kernels are closed to XLA.
"""

from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from attrs import frozen
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from atomr_trio.core import ModelLoadError

from .attention import Attend, AttentionSpec
from .kv_cache import LayerCache, Slots

__all__ = ["ONE_DEVICE", "Layout", "SplitAttention"]

_AXIS = "tensor"
_HEADS_AXIS = 1


@frozen
class Layout:
    """The devices that a model lies on. Hashable, since programs are traced for it.

    Args:
        mesh: of several devices, with one axis; ``None``: the one that jax computes on.
    """

    mesh: Mesh | None = None

    @classmethod
    def over(cls, count: int) -> "Layout":
        """Lay a model over the first ``count`` devices of this host.

        Raises:
            ModelLoadError: there are fewer.
        """
        if count == 1:
            return cls()
        devices = cast("list[Any]", jax.local_devices())
        if count > len(devices):
            raise ModelLoadError(f"tensor_parallel={count}, but the number of devices here is {len(devices)}")
        return cls(Mesh(np.array(devices[:count]), (_AXIS,)))

    @property
    def count(self) -> int:
        """How many devices there are."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def whole(self) -> NamedSharding | None:
        """All of an array on every device; ``None`` with one device."""
        return self.split(None)

    @property
    def heads(self) -> NamedSharding | None:
        """Where pages and views lie, whose second axis is that of the key-value heads; ``None`` with one device."""
        return self.split(_HEADS_AXIS)

    def split(self, axis: int | None) -> NamedSharding | None:
        """Return how an array lies that is dealt along an axis; ``None`` with one device."""
        if self.mesh is None:
            return None
        return NamedSharding(self.mesh, PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, _AXIS))

    def put(self, values: Any, dtype: Any, axis: int | None = None) -> jax.Array:
        """Copy an array of the host, dealt along an axis; no device ever holds more of it than its share."""
        sharding = self.split(axis)
        if sharding is None:
            return jnp.array(values, dtype)
        return jax.make_array_from_callback(values.shape, sharding, lambda share: np.array(values[share], dtype))

    def attend(self, attend: Attend) -> Attend:
        """Return a back-end of attention for arrays that lie so."""
        return attend if self.mesh is None else SplitAttention(attend, self.mesh)


ONE_DEVICE = Layout()
"""What most models lie on."""


@frozen
class SplitAttention:
    """Lets every device attend with its own heads, see `Attend`.

    Args:
        back_end: sees the heads of one device.
        mesh: the devices.
    """

    back_end: Attend
    mesh: Mesh

    def __call__(
        self, spec: AttentionSpec, cache: LayerCache, q: jax.Array, k: jax.Array, v: jax.Array, slots: Slots
    ) -> tuple[jax.Array, LayerCache]:
        """Attend."""
        pages, rows = PartitionSpec(None, _AXIS), PartitionSpec(None, None, _AXIS)
        split = jax.shard_map(
            partial(self.back_end, spec),
            mesh=self.mesh,
            in_specs=(pages, rows, rows, rows, PartitionSpec()),
            out_specs=(rows, pages),
            # Kernels do not say what of their results is the same on all devices: nothing is.
            check_vma=False,
        )
        return split(cache, q, k, v, slots)
