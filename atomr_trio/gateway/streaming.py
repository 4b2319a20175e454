"""An answer as a server-sent event stream."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from attrs import define

from atomr_trio.core import TokenChunk, TokenUsage

from .answers import Answers, News
from .pump import EventBody
from .wire import Failure, Shape

__all__ = ["EventStream"]


@define
class EventStream(EventBody):
    """Yields one piece per wake-up: everything that is pending.

    Args:
        answers: where the news come from.
        shape: how they look.
        open_choices: the choices that have not ended yet.
        opening: what goes before all news.
        first: news that were received before the response began.
        usage: computes the usage of the whole answer at its end.
        tell: the words for a failure; it also logs bugs.
        heartbeat: seconds of silence after which a sign of life is sent.
        release: closes what the answers need; entered by the request's handler, left here or with the request.
    """

    answers: Answers
    shape: Shape
    open_choices: set[int]
    opening: bytes
    first: Sequence[News]
    usage: Callable[[], TokenUsage]
    tell: Callable[[Exception], Failure]
    heartbeat: float
    release: AsyncExitStack
    _ended: bool = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.release.aclose()

    @property
    def has_news(self) -> bool:
        """Something came before the response began, or goes before all that comes."""
        return bool(self.opening or self.first)

    @property
    def ping(self) -> bytes:
        """That of the shape."""
        return self.shape.ping

    @property
    def is_over(self) -> bool:
        """The answer has ended."""
        return self._ended

    async def let_go(self) -> None:
        """Close what the answers need."""
        await self.release.aclose()

    async def __anext__(self) -> bytes:
        """The next bytes to write.

        Raises:
            StopAsyncIteration: the stream has ended properly.
        """
        while not self._ended:
            news, self.first = self.first, ()
            # What opens the stream does not wait for its first news.
            if not (news or self.opening):
                news = await self.answers.receive()
            if written := self._write(news):
                return written
        raise StopAsyncIteration

    def watch(self, call: Callable[[], None] | None) -> bool:
        """One choice can be watched, several are waited for."""
        can = self.answers.watch(call)
        if can and call is not None and self.has_news:
            call()
        return can

    def take(self) -> bytes:
        """What there is to write now; nothing after the last piece."""
        if self._ended:
            return b""
        if self.first or self.opening:
            first, self.first = self.first, ()
            written = self._write(first)
            return written if self._ended else written + self._write(self.answers.take())
        return self._write(self.answers.take())

    def fail(self, error: Exception) -> bytes:
        """The last bytes of a stream that cannot go on."""
        return self.shape.failure(self.tell(error))

    def _write(self, news: Sequence[News]) -> bytes:
        if len(news) == 1 and not self.opening:
            index, piece = news[0]
            if not isinstance(piece, Exception) and piece.finish_reason is None:
                return self.shape.chunk(index, piece)
        parts, self.opening = [self.opening], b""
        for index, piece in news:
            if isinstance(piece, Exception):
                self._ended = True
                return b"".join([*parts, self.fail(piece)])
            parts.append(self.shape.chunk(index, piece))
            self._note_end(index, piece)
        if self._ended:
            parts.append(self.shape.end(self.usage()))
        return b"".join(parts)

    def _note_end(self, index: int, piece: TokenChunk) -> None:
        if piece.finish_reason is not None:
            self.open_choices.discard(index)
            self._ended = not self.open_choices
