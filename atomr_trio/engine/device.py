# pyright: reportUnknownMemberType=false
"""What the engine asks jax about its device: the typed edge of an untyped library."""

import hashlib
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import jax
from attrs import frozen

__all__ = ["Device", "first_device", "host_tag", "shapes_of", "use_compilation_cache", "wait_for"]

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


def use_compilation_cache(folder: str) -> None:
    """Keep compiled programs in a folder, across processes. Affects the whole process."""
    jax.config.update("jax_compilation_cache_dir", str(Path(folder) / host_tag()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def host_tag() -> str:
    """Name the kind of processor: code for one must not be run on another that shares the folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:12]}"
