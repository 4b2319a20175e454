"""The choices of a chat answer, told apart into text, reasoning and calls while they come. Pure."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from attrs import define, field
from msgspec import UNSET

from atomr_trio.core import (
    AnswerForm,
    AnswerReader,
    Called,
    FinishReason,
    Piece,
    Said,
    Thought,
    TokenChunk,
    Tokens,
)

from ._objects import CallDelta, CallObject, ChatMessage, Delta, FunctionDelta, FunctionObject

__all__ = ["ChatChoices"]


@define
class _Plain:
    """Reads what is nothing but text."""

    def push(self, text: str) -> Sequence[Piece]:
        return (Said(text),) if text else ()

    def finish(self) -> Sequence[Piece]:
        return ()


@define
class _Open:
    """A choice that is being streamed."""

    reader: AnswerReader
    calls: int = 0


@define
class ChatChoices:
    """Makes deltas and messages of the choices of one answer.

    A runner that makes calls itself sends them as ``tool_call_delta``: they pass fragment by fragment.

    Args:
        id: the answer's; the ids of its calls are made of it.
    """

    _id: str
    form: AnswerForm | None = None
    _open: dict[int, _Open] = field(factory=dict[int, _Open], init=False)

    def read(self, index: int, chunk: TokenChunk) -> Sequence[Piece]:
        """Read the text that is new in a choice."""
        choice = self._open.get(index) or self._open.setdefault(index, _Open(self._reader()))
        pieces = choice.reader.push(chunk.text_delta)
        return pieces if chunk.finish_reason is None else [*pieces, *choice.reader.finish()]

    def deltas(self, index: int, chunk: TokenChunk, pieces: Sequence[Piece]) -> list[Delta]:
        """Return what is new in a choice, after `read` found these pieces in it."""
        choice = self._open[index]
        deltas = [delta for piece in pieces for delta in self._told(index, choice, piece)]
        if chunk.tool_call_delta is not None:
            choice.calls += 1
            deltas.append(Delta(tool_calls=[_fragment(chunk.tool_call_delta)]))
        return deltas

    def reason(self, index: int, reason: FinishReason) -> FinishReason:
        """Return why a choice ended, which is told after its last delta."""
        return _reason(reason, self._open[index].calls if index in self._open else 0)

    def message(self, index: int, tokens: Tokens) -> tuple[ChatMessage, FinishReason]:
        """Return a whole choice, and why it ended."""
        reader = self._reader()
        pieces = [*reader.push(tokens.text), *reader.finish()]
        text, thought = _text(pieces, Said), _text(pieces, Thought)
        called = [piece for piece in pieces if isinstance(piece, Called)]
        calls = [CallObject(self._call_id(index, at), _function(call)) for at, call in enumerate(called)]
        calls += _assembled(tokens.tool_calls)
        message = ChatMessage(text if text or not (calls or thought) else None)
        if thought:
            message.reasoning_content = thought
        if calls:
            message.tool_calls = calls
        return message, _reason(tokens.finish_reason or FinishReason.STOP, len(calls))

    def _reader(self) -> AnswerReader:
        return _Plain() if self.form is None else self.form.reader()

    def _told(self, index: int, choice: _Open, piece: Piece) -> Iterator[Delta]:
        match piece:
            case Said(text):
                yield Delta(content=text)
            case Thought(text):
                yield Delta(reasoning_content=text)
            case Called(name, arguments):
                at, choice.calls = choice.calls, choice.calls + 1
                begin = CallDelta(at, FunctionDelta("", name), self._call_id(index, at), "function")
                yield Delta(tool_calls=[begin])
                yield Delta(tool_calls=[CallDelta(at, FunctionDelta(arguments))])

    def _call_id(self, index: int, at: int) -> str:
        # The same streamed and whole, and no other call's in the conversations of the world.
        return f"call_{hashlib.blake2b(f'{self._id}/{index}/{at}'.encode(), digest_size=12).hexdigest()}"


def _reason(reason: FinishReason, calls: int) -> FinishReason:
    return FinishReason.TOOL_CALLS if calls and reason is FinishReason.STOP else reason


def _text(pieces: Iterable[Piece], kind: type[Said] | type[Thought]) -> str:
    return "".join(piece.text for piece in pieces if isinstance(piece, kind))


def _function(call: Called) -> FunctionObject:
    return FunctionObject(call.name, call.arguments)


def _fragment(told: dict[str, Any]) -> CallDelta:
    """Return a fragment of a runner's own call as the API has it."""
    function: dict[str, Any] = told.get("function") or {}
    piece = FunctionDelta(function.get("arguments") or "", function.get("name") or UNSET)
    return CallDelta(told.get("index", 0), piece, told.get("id") or UNSET, told.get("type") or UNSET)


def _assembled(fragments: Iterable[dict[str, Any]]) -> list[CallObject]:
    """Put the fragments of a runner's own calls together."""
    calls: dict[int, CallObject] = {}
    for fragment in fragments:
        call = calls.setdefault(fragment.get("index", 0), CallObject("", FunctionObject("", "")))
        function: dict[str, Any] = fragment.get("function") or {}
        call.id = fragment.get("id") or call.id
        call.function.name = function.get("name") or call.function.name
        call.function.arguments += function.get("arguments") or ""
    return [calls[index] for index in sorted(calls)]
