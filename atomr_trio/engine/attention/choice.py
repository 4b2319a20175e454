"""Which back-end of attention a device gets."""

from typing import Literal

from .blocked import attend_blocked
from .pages import attend_pages
from .spec import Attend

__all__ = ["AttentionChoice", "choose_backend"]

AttentionChoice = Literal["auto", "xla"]


def choose_backend(asked: AttentionChoice, platform: str, capability: tuple[int, int] | None) -> Attend:
    """Return the back-end for the programs that read pages.

    Args:
        asked: ``auto``: the fastest for the device; ``xla``: the one that works everywhere.
        platform: jax's name for the kind of device.
        capability: of a CUDA GPU, as (major, minor); ``None`` for other devices.
    """
    if asked == "auto" and platform == "cpu":
        return attend_blocked
    if asked == "xla" or platform != "gpu" or capability is None:
        return attend_pages
    from .gpu import GpuAttention

    return GpuAttention(capability)
