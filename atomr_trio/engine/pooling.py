"""Makes embeddings of what the chunks of prompts bring."""

import numpy as np
import numpy.typing as npt
from attrs import define, field

from .step_plan import Chunk

__all__ = ["Floats", "Poolings"]

Floats = npt.NDArray[np.float32]


@define
class Poolings:
    """Embeddings of the prompts that asked for them, as far as they have come."""

    # In double precision: a sum over many chunks is as good as over one.
    _open: dict[int, npt.NDArray[np.float64]] = field(init=False, factory=dict[int, npt.NDArray[np.float64]])

    def record(self, chunk: Chunk, part: Floats) -> bool:
        """Book what a chunk brought; chunks come in order, and a sequence that begins anew does so at 0.

        Returns:
            False if that is not made of numbers.
        """
        begun = self._open.get(chunk.sequence.id) if chunk.start and chunk.pooled == "mean" else None
        self._open[chunk.sequence.id] = part.astype(np.float64) if begun is None else begun + part
        return bool(np.isfinite(part).all())

    def take(self, request_id: int) -> bytes | None:
        """Return the embedding, once: float32, little-endian, of length 1."""
        pooled = self._open.pop(request_id, None)
        if pooled is None:
            return None
        # The mean has the direction of the sum. Zeros have none, and stay.
        length = float(np.linalg.norm(pooled))
        return (pooled / (length or 1.0)).astype("<f4").tobytes()

    def forget(self, request_id: int) -> None:
        """Drop what has come."""
        self._open.pop(request_id, None)
