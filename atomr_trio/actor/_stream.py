"""A stream of answers: bounded, and ended from either side."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Generic, TypeVar

import trio

from ._errors import ActorFailed, ActorStopped
from ._metadata import Envelope

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

__all__ = ["AskStream", "StreamRequest", "StreamSink"]


class StreamRequest(Generic[R_co]):
    """Base of messages that are answered by a stream of ``R``; lets ``ask_stream`` return it typed."""

    __slots__ = ()


class StreamSink(Generic[R]):
    """Where a producer puts its items. Bounded: ``send`` waits while the reader is behind."""

    def __init__(self, path: str, capacity: int) -> None:
        self._path = path
        self._send, self._receive = trio.open_memory_channel[R](capacity)
        self._error: Exception | None = None
        self._closed = False
        self.is_dropped: bool = False
        self._on_drop: Callable[[], None] | None = None

    async def send(self, item: R) -> None:
        """Hand over an item; waits while the reader is behind. The producer is cancelled if there is no reader."""
        await self._send.send(item)

    def close(self, error: Exception | None = None) -> None:
        """End the stream, well or with an error that the reader gets after the last item. The first end counts."""
        if not self._closed:
            self._closed, self._error = True, error
            self._send.close()

    def call_on_drop(self, callback: Callable[[], None]) -> None:
        """Call back when the reader leaves before the end; at once if it has left."""
        self._on_drop = callback
        if self.is_dropped:
            callback()

    async def produce(self, fn: Callable[..., Any], args: tuple[object, ...]) -> None:
        """Run a producer until it is through, or until the reader leaves."""
        with trio.CancelScope() as scope:
            self.call_on_drop(lambda: scope.cancel(reason=f"the reader of {self._path} left"))
            try:
                await fn(self, *args)
                self.close()
            except Exception as failure:
                error = ActorFailed(self._path)
                error.__cause__ = failure
                self.close(error)
                raise
            finally:
                # Cancelled with its actor; after a normal end this does nothing.
                self.close(ActorStopped(self._path))

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[AsyncIterator[R]]:
        """Read the items; leaving the block ends the producer."""
        try:
            yield _Items(self)
        finally:
            # The producer first: closing would wake one that waits for room with an error instead.
            self.is_dropped = True
            if not self._closed and self._on_drop is not None:
                self._on_drop()
            self._receive.close()

    async def next(self) -> R:
        """Return the next item.

        Raises:
            StopAsyncIteration: the stream has ended well.
            Exception: what it was closed with.
        """
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            if self._error is not None:
                raise self._error from self._error.__cause__
            raise StopAsyncIteration from None


class _Items(Generic[R]):
    __slots__ = ("_sink",)

    def __init__(self, sink: StreamSink[R]) -> None:
        self._sink = sink

    def __aiter__(self) -> "_Items[R]":
        return self

    async def __anext__(self) -> R:
        return await self._sink.next()


class AskStream(Envelope):
    """An envelope in a mailbox: a message whose sender reads a stream of answers."""

    __slots__ = ("sink",)

    def __init__(self, message: Any, sink: StreamSink[Any]) -> None:
        super().__init__(message)
        self.sink = sink

    def refuse(self, error: Exception) -> None:
        """End the stream with the error."""
        self.sink.close(error)
