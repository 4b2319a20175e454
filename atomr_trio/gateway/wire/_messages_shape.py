"""How an answer of ``/v1/messages`` looks, streamed or whole. Pure: no clock, no I/O."""

from collections.abc import Sequence

from attrs import define, field
from msgspec import Raw

from atomr_trio.core import (
    AnswerForm,
    Called,
    ExecuteBatch,
    FinishReason,
    Piece,
    Said,
    Thought,
    TokenChunk,
    Tokens,
    TokenUsage,
)

from ._failure import Failure
from ._messages_errors import messages_error
from ._messages_objects import (
    BlockDelta,
    BlockStart,
    BlockStop,
    ContentBlock,
    InputDelta,
    MessageDelta,
    MessageObject,
    MessageStart,
    MessageStop,
    MessageUsage,
    Ping,
    StopDelta,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    ToolUseBlock,
    stop_fields,
)
from ._pieces import AnswerPieces, chunks_of
from ._sse import tagged_event, to_json

__all__ = ["MessagesShape"]

_PING = tagged_event(Ping())
_NO_INPUT = Raw(b"{}")


@define
class MessagesShape:
    """A ``message`` and its events: the message begins, blocks come one after the other, the message ends.

    Args:
        id: the message's.
        model: as the client said it.
    """

    id: str
    model: str
    _pieces: AnswerPieces = field(init=False, factory=AnswerPieces)
    # Those that are whole, and the pieces of the text of the one that is open.
    _blocks: list[ContentBlock] = field(init=False, factory=list[ContentBlock])
    _open: type[Said | Thought] | None = field(init=False, default=None)
    _texts: list[str] = field(init=False, factory=list[str])
    _end: StopDelta | None = field(init=False, default=None)

    @property
    def ping(self) -> bytes:
        """An event that clients skip."""
        return _PING

    def begin(self, prompt: TokenUsage) -> bytes:
        """The message without its content."""
        return tagged_event(MessageStart(self._message(prompt)))

    def read_as(self, form: AnswerForm | None) -> None:
        """Tell reasoning and calls apart from the text."""
        self._pieces.form = form

    def submitted(self, choices: Sequence[ExecuteBatch]) -> None:
        """Do nothing: this API tells nothing of it."""

    def chunk(self, index: int, chunk: TokenChunk) -> bytes:
        """The blocks: text, reasoning and calls, in the order in which they are said."""
        parts = [part for piece in self._pieces.take(chunk) for part in self._told(piece)]
        if chunk.finish_reason is not None:
            parts.append(self._closed())
            self._end = stop_fields(self._pieces.reason(chunk.finish_reason), chunk.stop_string)
        return b"".join(parts)

    def end(self, usage: TokenUsage) -> bytes:
        """Why it ended, and the usage of all of it."""
        end = self._end or stop_fields(FinishReason.STOP, None)
        return tagged_event(MessageDelta(end, MessageUsage.of(usage))) + tagged_event(MessageStop())

    def failure(self, failure: Failure) -> bytes:
        """An error event; a block that is open stays so."""
        return tagged_event(messages_error(failure))

    def whole(self, choices: Sequence[Tokens], usage: TokenUsage) -> bytes:
        """A ``message`` object."""
        (tokens,) = choices
        for chunk in chunks_of(tokens):
            self.chunk(0, chunk)
        return to_json(self._message(usage))

    def _told(self, piece: Piece) -> list[bytes]:
        if isinstance(piece, Called):
            return [self._closed(), *self._call(piece)]
        delta = TextDelta(piece.text) if isinstance(piece, Said) else ThinkingDelta(piece.text)
        parts = [] if self._open is type(piece) else [self._closed(), self._opened(type(piece))]
        self._texts.append(piece.text)
        return [*parts, tagged_event(BlockDelta(len(self._blocks), delta))]

    def _opened(self, kind: type[Said | Thought]) -> bytes:
        self._open = kind
        return tagged_event(BlockStart(len(self._blocks), self._block()))

    def _closed(self) -> bytes:
        if self._open is None:
            return b""
        block, self._open = self._block(), None
        self._texts.clear()
        return self._add(block)

    def _block(self) -> ContentBlock:
        text = "".join(self._texts)
        return TextBlock(text) if self._open is Said else ThinkingBlock(text)

    def _call(self, call: Called) -> list[bytes]:
        at = len(self._blocks)
        id = f"toolu_{self.id.removeprefix('msg_')}_{at}"
        return [
            tagged_event(BlockStart(at, ToolUseBlock(id, call.name, _NO_INPUT))),
            tagged_event(BlockDelta(at, InputDelta(call.arguments))),
            self._add(ToolUseBlock(id, call.name, Raw(call.arguments.encode()))),
        ]

    def _add(self, block: ContentBlock) -> bytes:
        self._blocks.append(block)
        return tagged_event(BlockStop(len(self._blocks) - 1))

    def _message(self, usage: TokenUsage) -> MessageObject:
        end = self._end
        return MessageObject(
            id=self.id,
            model=self.model,
            content=self._blocks,
            stop_reason=None if end is None else end.stop_reason,
            stop_sequence=None if end is None else end.stop_sequence,
            usage=MessageUsage.of(usage),
        )
