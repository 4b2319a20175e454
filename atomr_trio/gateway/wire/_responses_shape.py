"""How an answer of ``/v1/responses`` looks, streamed or whole. Pure: no clock, no I/O."""

from collections.abc import Sequence
from typing import Any

from attrs import define, field
from msgspec.structs import replace

from atomr_trio.core import (
    AnswerForm,
    Called,
    ExecuteBatch,
    FinishReason,
    Piece,
    Said,
    Thought,
    TokenChunk,
    TokenLogprob,
    Tokens,
    TokenUsage,
)

from ._failure import Failure
from ._logprobs import chat_logprobs
from ._objects import ChatToken
from ._pieces import AnswerPieces, chunks_of
from ._responses_item import OpenItem
from ._responses_objects import (
    OutputCall,
    OutputItem,
    OutputText,
    ResponseObject,
    ResponseUsage,
    Status,
    end_status,
    failed_fields,
)
from ._sse import PING, named_event, to_json

__all__ = ["ResponsesShape"]


@define
class ResponsesShape:
    """A ``response`` and its events: the response begins, items come one after the other, the response ends.

    Args:
        response: before there is anything of the answer. The ids of items are made of its own.
        logprobs: tell the log probabilities of the tokens.
    """

    response: ResponseObject
    logprobs: bool = False
    _sent: int = field(init=False, default=0)
    _pieces: AnswerPieces = field(init=False, factory=AnswerPieces)
    _items: list[OutputItem] = field(init=False, factory=list[OutputItem])
    _open: OpenItem | None = field(init=False, default=None)
    # Of tokens whose text has not been told yet.
    _tokens: list[ChatToken] = field(init=False, factory=list[ChatToken])
    _reason: FinishReason | None = field(init=False, default=None)

    @property
    def ping(self) -> bytes:
        """A comment: this API has no event for it."""
        return PING

    def begin(self, prompt: TokenUsage) -> bytes:
        """The response without its output, twice."""
        return self._lifecycle("created", self.response) + self._lifecycle("in_progress", self.response)

    def read_as(self, form: AnswerForm | None) -> None:
        """Tell reasoning and calls apart from the text."""
        self._pieces.form = form

    def submitted(self, choices: Sequence[ExecuteBatch]) -> None:
        """Do nothing: this API tells nothing of it."""

    def chunk(self, index: int, chunk: TokenChunk) -> bytes:
        """The items: messages, reasoning and calls, in the order in which they are said."""
        self._tokens += self._chat_tokens(chunk.details)
        parts = [part for piece in self._pieces.take(chunk) for part in self._told(piece)]
        if chunk.finish_reason is not None:
            self._reason = chunk.finish_reason
            parts += self._finished()
        return b"".join(parts)

    def end(self, usage: TokenUsage) -> bytes:
        """The whole response."""
        response = self._ended(usage)
        return self._lifecycle(response.status, response)

    def failure(self, failure: Failure) -> bytes:
        """The response with the error, and with what there is of its items."""
        rest = [] if self._open is None else [self._open.item("incomplete", self._open.part)]
        told = replace(self.response, status="failed", error=failed_fields(failure), output=[*self._items, *rest])
        return self._lifecycle("failed", told)

    def whole(self, choices: Sequence[Tokens], usage: TokenUsage) -> bytes:
        """A ``response`` object."""
        (tokens,) = choices
        for chunk in chunks_of(tokens):
            self.chunk(0, chunk)
        return to_json(self._ended(usage))

    def _told(self, piece: Piece) -> list[bytes]:
        if isinstance(piece, Called):
            return [*self._closed("completed"), *self._call(piece)]
        return self._more(type(piece), piece.text)

    def _more(self, kind: type[Said | Thought], text: str) -> list[bytes]:
        parts: list[bytes] = []
        if self._open is None or self._open.kind is not kind:
            parts = [*self._closed("completed"), *self._opened(kind)]
        assert self._open is not None
        self._open.texts.append(text)
        logprobs: dict[str, Any] = {}
        if kind is Said:
            logprobs["logprobs"], self._tokens = self._tokens, []
            self._open.tokens += logprobs["logprobs"]
        return [*parts, self._of_part(f"{self._open.event}.delta", delta=text, **logprobs)]

    def _finished(self) -> list[bytes]:
        parts: list[bytes] = []
        if self._tokens:
            parts = self._more(Said, "")
        # An answer without a word still is a message.
        elif self._open is None and not self._items:
            parts = self._opened(Said)
        return [*parts, *self._closed(end_status(self._reason)[0])]

    def _opened(self, kind: type[Said | Thought]) -> list[bytes]:
        item = self._open = OpenItem(kind, self._id("msg" if kind is Said else "rs"))
        return [
            self._of_item("response.output_item.added", item=item.item("in_progress")),
            self._of_part("response.content_part.added", part=item.part),
        ]

    def _closed(self, status: Status) -> list[bytes]:
        if self._open is None:
            return []
        opened, part = self._open, self._open.part
        logprobs: dict[str, Any] = {"logprobs": part.logprobs} if isinstance(part, OutputText) else {}
        told = [
            self._of_part(f"{opened.event}.done", text=part.text, **logprobs),
            self._of_part("response.content_part.done", part=part),
        ]
        self._open = None
        return [*told, self._done(opened.item(status, part))]

    def _call(self, call: Called) -> list[bytes]:
        item = OutputCall(self._id("fc"), "in_progress", self._id("call"), call.name, "")
        event = "response.function_call_arguments"
        return [
            self._of_item("response.output_item.added", item=item),
            self._of_item(f"{event}.delta", item_id=item.id, delta=call.arguments),
            self._of_item(f"{event}.done", item_id=item.id, name=call.name, arguments=call.arguments),
            self._done(replace(item, status="completed", arguments=call.arguments)),
        ]

    def _done(self, item: OutputItem) -> bytes:
        told = self._of_item("response.output_item.done", item=item)
        self._items.append(item)
        return told

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{self.response.id.removeprefix('resp_')}_{len(self._items)}"

    def _ended(self, usage: TokenUsage) -> ResponseObject:
        status, details = end_status(self._reason)
        told = ResponseUsage.of(usage)
        return replace(self.response, status=status, incomplete_details=details, output=self._items, usage=told)

    def _chat_tokens(self, details: Sequence[TokenLogprob]) -> list[ChatToken]:
        return chat_logprobs(details).content if self.logprobs and details else []

    def _of_part(self, event: str, /, **fields: Any) -> bytes:
        assert self._open is not None
        return self._of_item(event, item_id=self._open.id, content_index=0, **fields)

    def _of_item(self, event: str, /, **fields: Any) -> bytes:
        return self._event(event, output_index=len(self._items), **fields)

    def _lifecycle(self, name: str, response: ResponseObject) -> bytes:
        return self._event(f"response.{name}", response=response)

    def _event(self, event: str, /, **fields: Any) -> bytes:
        number = self._sent
        self._sent += 1
        return named_event(event, {"type": event, "sequence_number": number, **fields})
