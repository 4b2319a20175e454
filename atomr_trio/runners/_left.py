"""Requests whose clients have left while the device process was at work on them: what it makes of them in vain."""

from attrs import define, field

from atomr_trio.core import ChunkSink, TokenChunk, TokenUsage
from atomr_trio.engine import frames

__all__ = ["LeftBehind"]

MOST = 4096
"""Beyond so many at once, the tokens of further ones are not counted."""


@define(eq=False)
class LeftBehind:
    """The aborted requests of one device process, each until the process says that nothing more comes of it."""

    _outs: dict[int, ChunkSink] = field(init=False, factory=dict[int, ChunkSink])

    def __len__(self) -> int:
        return len(self._outs)

    def add(self, sequence_id: int, out: ChunkSink) -> None:
        """Note that a request was aborted."""
        if len(self._outs) < MOST:
            self._outs[sequence_id] = out

    def take(self, output: frames.SequenceOutput) -> None:
        """Take tokens that were on their way."""
        if output.id in self._outs:
            _count(self._outs[output.id], len(output.token_ids))

    def forget(self, aborted: frames.Aborted) -> None:
        """Take the last word about requests."""
        for sequence_id, unsent in zip(aborted.ids, aborted.unsent, strict=True):
            out = self._outs.pop(sequence_id, None)
            if out is not None:
                _count(out, unsent)


def _count(out: ChunkSink, tokens: int) -> None:
    # No ids and no text: the stream has ended, and counts what it is given.
    if tokens:
        out.push(TokenChunk(usage=TokenUsage(output_tokens=tokens)))
