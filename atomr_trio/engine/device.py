# pyright: reportUnknownMemberType=false
# pyright: reportUnknownMemberType=false
"""What the engine asks jax about its device: the typed edge of an untyped library."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import numpy as np
from attrs import frozen
from jax.sharding import NamedSharding

__all__ = ["Device", "first_device", "is_computed", "shapes_of", "wait_for", "zeros"]

_T = TypeVar("_T")


@frozen
class Device:
    """A device.

    Args:
        platform: jax's name for the kind: ``cpu``, ``gpu`` …
        kind: its maker's name for it.
        free_bytes: what can still be allocated on it; ``None`` where it does not say.
        capability: of a CUDA GPU, as (major, minor).
        count: how many of them a model is dealt to; ``free_bytes`` is what the fullest of them has.
    """

    platform: str
    kind: str
    free_bytes: int | None
    capability: tuple[int, int] | None = None
    count: int = 1

    @property
    def is_cpu(self) -> bool:
        """Its memory is the host's."""
        return self.platform == "cpu"

    @property
    def name(self) -> str:
        """Its kind, and how many there are of it."""
        return self.kind if self.count == 1 else f"{self.count} x {self.kind}"

    def share(self, size: int) -> int:
        """Return how much of ``size`` bytes that are dealt to all devices is in the memory that one of them has."""
        # Devices that are simulated on a CPU have one memory between them.
        return size if self.is_cpu else -(-size // self.count)


def first_device(count: int = 1) -> Device:
    """Return the device that jax computes on, or the first ``count`` of them. Starts the back-end on the first call."""
    devices = cast("list[Any]", jax.local_devices()[:count])
    free = [_free_bytes(device) for device in devices]
    known = [size for size in free if size is not None]
    first, capability = devices[0], _capability(getattr(devices[0], "compute_capability", ""))
    return Device(first.platform, first.device_kind, min(known, default=None), capability, count)


def _free_bytes(device: Any) -> int | None:
    stats = cast("dict[str, int]", device.memory_stats() or {})
    limit = stats.get("bytes_limit")
    return None if limit is None else limit - stats.get("bytes_in_use", 0)


def _capability(text: str) -> tuple[int, int] | None:
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None


def shapes_of(make: Callable[[], _T], sharding: NamedSharding | None = None) -> _T:
    """Return what ``make`` would return, with shapes and dtypes in place of arrays.

    Args:
        make: is traced, not run.
        sharding: how all of its arrays lie: tracing forgets it.
    """

    def lay(shape: Any) -> Any:
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)

    return cast("_T", jax.tree.map(lay, jax.eval_shape(make)))


def zeros(shapes: _T) -> _T:
    """Return zeros for what `shapes_of` returned. Compiles nothing, as ``jnp.zeros`` would for a new shape."""

    def allocate(spec: Any) -> Any:
        return jax.device_put(np.zeros(spec.shape, spec.dtype), spec.sharding)

    return cast("_T", jax.tree.map(allocate, shapes))


def is_computed(array: jax.Array) -> bool:
    """Say whether a program's result is there, without waiting for it."""
    return cast("Any", array).is_ready()


def wait_for(tree: _T) -> _T:
    """Return the tree when all of its arrays are computed."""
    jax.block_until_ready(tree)
    return tree
