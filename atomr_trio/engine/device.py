# pyright: reportUnknownMemberType=false
"""What the engine asks jax about its device: the typed edge of an untyped library."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
from attrs import frozen

__all__ = ["Device", "first_device", "shapes_of", "wait_for"]

_T = TypeVar("_T")


@frozen
class Device:
    """A device. ``free_bytes``: what can still be allocated on it; ``None`` where it does not say."""

    platform: str
    kind: str
    free_bytes: int | None

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
    return Device(device.platform, device.device_kind, free)


def shapes_of(make: Callable[[], _T]) -> _T:
    """Return what ``make`` would return, with shapes and dtypes in place of arrays."""
    return jax.eval_shape(make)


def wait_for(tree: _T) -> _T:
    """Return the tree when all of its arrays are computed."""
    jax.block_until_ready(tree)
    return tree
