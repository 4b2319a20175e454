# pyright: reportUnknownMemberType=false
# pyright: reportUnknownMemberType=false
"""What the engine asks jax about its device: the typed edge of an untyped library."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import numpy as np
from attrs import frozen

__all__ = ["Device", "first_device", "shapes_of", "wait_for", "zeros"]

_T = TypeVar("_T")


@frozen
class Device:
    """A device.

    Args:
        platform: jax's name for the kind: ``cpu``, ``gpu`` …
        kind: its maker's name for it.
        free_bytes: what can still be allocated on it; ``None`` where it does not say.
        capability: of a CUDA GPU, as (major, minor).
    """

    platform: str
    kind: str
    free_bytes: int | None
    capability: tuple[int, int] | None = None

    @property
    def is_cpu(self) -> bool:
        """Its memory is the host's."""
        return self.platform == "cpu"


def first_device() -> Device:
    """Return the device that jax computes on. Starts the back-end on the first call."""
    device = cast("Any", jax.devices()[0])
    stats = cast("dict[str, int]", device.memory_stats() or {})
    limit = stats.get("bytes_limit")
    free = None if limit is None else limit - stats.get("bytes_in_use", 0)
    return Device(device.platform, device.device_kind, free, _capability(getattr(device, "compute_capability", "")))


def _capability(text: str) -> tuple[int, int] | None:
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None


def shapes_of(make: Callable[[], _T]) -> _T:
    """Return what ``make`` would return, with shapes and dtypes in place of arrays."""
    return jax.eval_shape(make)


def zeros(shapes: _T) -> _T:
    """Return zeros for what `shapes_of` returned. Compiles nothing, as ``jnp.zeros`` would for a new shape."""

    def allocate(spec: Any) -> Any:
        return jax.device_put(np.zeros(spec.shape, spec.dtype))

    return cast("_T", jax.tree.map(allocate, shapes))


def wait_for(tree: _T) -> _T:
    """Return the tree when all of its arrays are computed."""
    jax.block_until_ready(tree)
    return tree
