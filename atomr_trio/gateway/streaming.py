"""An answer as a server-sent event stream: the body object that Quart iterates."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import trio
from attrs import define
from quart.wrappers.response import ResponseBody

from atomr_trio.core import TokenChunk, TokenUsage

from .answers import Answers, News
from .wire import DONE, PING, Shape, event

__all__ = ["EventStream"]


@define
class EventStream(ResponseBody):
    """Yields one write per wake-up: everything that is pending, as one piece of bytes.

    Args:
        answers: where the news come from.
        shape: how they look.
        open_choices: the choices that have not ended yet.
        first: news that were received before the response began; if there are none, a comment goes out at once.
        usage: computes the usage of the whole answer at its end.
        tell: the JSON object for a failure; it also logs bugs.
        heartbeat: seconds of silence after which a comment is sent.
        release: closes what the answers need; entered by the request's handler, left here or with the request.
    """

    answers: Answers
    shape: Shape
    open_choices: set[int]
    first: Sequence[News]
    usage: Callable[[], TokenUsage]
    tell: Callable[[Exception], object]
    heartbeat: float
    release: AsyncExitStack
    _begun: bool = False
    _ended: bool = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.release.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next bytes to write.

        Raises:
            StopAsyncIteration: the stream has ended properly, with ``[DONE]``.
        """
        while not self._ended:
            news = await self._news()
            if not news:
                return PING
            if written := self._write(news):
                return written
        raise StopAsyncIteration

    async def _news(self) -> Sequence[News]:
        if not self._begun:
            self._begun = True
            return self.first
        with trio.move_on_after(self.heartbeat):
            return await self.answers.receive()
        return ()

    def _write(self, news: Sequence[News]) -> bytes:
        parts: list[bytes] = []
        for index, piece in news:
            if isinstance(piece, Exception):
                self._ended = True
                return b"".join([*parts, event(self.tell(piece)), DONE])
            parts.append(self.shape.chunk(index, piece))
            self._note_end(index, piece)
        if self._ended:
            parts += [self.shape.usage(self.usage()), DONE]
        return b"".join(parts)

    def _note_end(self, index: int, piece: TokenChunk) -> None:
        if piece.finish_reason is not None:
            self.open_choices.discard(index)
            self._ended = not self.open_choices
