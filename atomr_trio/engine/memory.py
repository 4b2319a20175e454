"""How many pages the cache gets: a pure decision, and the readings it is made from."""

from pathlib import Path

import jax

from atomr_trio.core import ModelLoadError

from .blocks import pages_for
from .config import DType
from .device import Device, shapes_of
from .kv_cache import CacheShape, init_kv
from .settings import EngineSettings

__all__ = ["available_bytes", "choose_pages", "page_bytes"]

_DEFAULT_TOKENS = 16_384
_SHARE_OF_FREE = 0.6


def page_bytes(config: CacheShape, page_size: int, dtype: DType) -> int:
    """Return what one page takes in all layers, in bytes."""
    shapes = shapes_of(lambda: init_kv(config, 1, page_size, dtype))
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def choose_pages(
    settings: EngineSettings, context: int, bytes_per_page: int, free: int | None, *, accelerator: bool
) -> tuple[int, int]:
    """Return (pages, longest sequence in tokens).

    Args:
        settings: what was asked for.
        context: what the model was made for, in tokens.
        bytes_per_page: see ``page_bytes``; of several devices, what one has of it.
        free: bytes that can be had, weights already loaded; ``None``: unknown, assume enough. Of several devices, on
            the fullest one.
        accelerator: the memory is the device's own, and nobody else wants it.

    Raises:
        ModelLoadError: not even two tokens fit.
    """
    longest = min(settings.max_model_len or context, context)
    usual = settings.max_num_seqs * longest if accelerator else max(2 * longest, _DEFAULT_TOKENS)
    pages = pages_for(settings.kv_tokens or usual, settings.page_size)
    if free is not None:
        pages = min(pages, int(free * _SHARE_OF_FREE) // bytes_per_page)
    longest = min(longest, pages * settings.page_size, settings.kv_tokens or longest)
    if longest < 2:
        raise ModelLoadError("there is no memory left for its cache")
    return pages, longest


def available_bytes(device: Device) -> int | None:
    """Return the bytes that can still be allocated for a device, or ``None`` where that cannot be known."""
    return _host_bytes() if device.is_cpu else device.free_bytes


def _host_bytes() -> int | None:
    readings = [_meminfo_bytes(), _cgroup_bytes(Path("/sys/fs/cgroup"))]
    return min((reading for reading in readings if reading is not None), default=None)


def _meminfo_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None


def _cgroup_bytes(folder: Path) -> int | None:
    """A container's limit, which ``/proc/meminfo`` does not know."""
    try:
        limit, used = (folder / "memory.max").read_text(), (folder / "memory.current").read_text()
    except OSError:
        return None
    return max(0, int(limit) - int(used)) if limit.strip() != "max" else None
