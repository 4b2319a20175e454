"""One answer, told apart into text, reasoning and calls while it comes. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any

from attrs import define, field

from atomr_trio.core import AnswerForm, AnswerReader, Called, FinishReason, Piece, Said, TokenChunk, Tokens

__all__ = ["AnswerPieces", "chunks_of"]


@define
class AnswerPieces:
    """Reads the chunks of one answer.

    The calls that a runner makes itself come in fragments; they are pieces once they are whole.
    """

    form: AnswerForm | None = None
    called: bool = field(default=False, init=False)
    """There was a call."""
    _reader: AnswerReader | None = field(default=None, init=False)
    _own: dict[int, list[str]] = field(factory=dict[int, list[str]], init=False)

    def take(self, chunk: TokenChunk) -> list[Piece]:
        """Return what is certain now; with the last chunk, all there is."""
        self._collect(chunk.tool_call_delta or {})
        pieces = [*self._read(chunk)]
        if chunk.finish_reason is not None:
            pieces += self._whole_calls()
        self.called = self.called or any(isinstance(piece, Called) for piece in pieces)
        return pieces

    def reason(self, reason: FinishReason) -> FinishReason:
        """Return why the answer ended, after its last piece."""
        return FinishReason.TOOL_CALLS if self.called and reason is FinishReason.STOP else reason

    def _read(self, chunk: TokenChunk) -> Sequence[Piece]:
        if self.form is None:
            return [Said(chunk.text_delta)] if chunk.text_delta else []
        if self._reader is None:
            self._reader = self.form.reader()
        rest = self._reader.finish if chunk.finish_reason is not None else tuple[Piece, ...]
        return [*self._reader.push(chunk.text_delta), *rest()]

    def _collect(self, fragment: dict[str, Any]) -> None:
        function: dict[str, Any] = fragment.get("function") or {}
        if function:
            call = self._own.setdefault(fragment.get("index", 0), ["", ""])
            call[0] = function.get("name") or call[0]
            call[1] += function.get("arguments") or ""

    def _whole_calls(self) -> Iterator[Called]:
        return (Called(name, arguments or "{}") for _, (name, arguments) in sorted(self._own.items()))


def chunks_of(tokens: Tokens) -> Iterator[TokenChunk]:
    """Return a whole answer as chunks, so that it is read as a streamed one is."""
    for fragment in tokens.tool_calls:
        yield TokenChunk(tool_call_delta=fragment)
    yield TokenChunk(
        text_delta=tokens.text,
        details=tuple(tokens.details),
        finish_reason=tokens.finish_reason or FinishReason.STOP,
        stop_string=tokens.stop_string,
    )
