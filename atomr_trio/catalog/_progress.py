"""How far a fetch has come."""

from collections.abc import Callable
from typing import Literal

from attrs import frozen

__all__ = ["Progress", "ProgressCallback", "Stage", "silent"]

Stage = Literal["wait", "download", "verify", "unpack"]


@frozen
class Progress:
    """One report of a fetch.

    Args:
        stage: ``wait`` while another process fetches the same model, then ``download``, ``verify``, ``unpack``.
        done: bytes so far; never falls within a stage.
        total: bytes in the end, 0 when unknown.
    """

    stage: Stage
    done: int = 0
    total: int = 0


ProgressCallback = Callable[[Progress], None]
"""Called about ten times a second, in the thread that fetches. Raising from it ends the fetch with that exception."""


def silent(_progress: Progress) -> None:
    """Ignore the report."""
