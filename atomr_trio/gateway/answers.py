"""One or many answers under one roof: whatever happens, leaving the block cancels all that is not finished."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import trio
from attrs import define, field

from atomr_trio.core import ExecuteBatch, FinishReason, Internal, TokenChunk, Tokens, TokenUsage

from .backend import AnswerStream, GatewayBackend
from .charges import reserved

__all__ = ["Answers", "News", "open_answers", "usage_of"]

# What happened to one choice: a piece of its text, or its failure, which is the failure of the whole request.
News = tuple[int, TokenChunk | Exception]

# Enough that the choices of one engine step are taken in one go; a slow client leaves the rest to be merged.
READ_AHEAD = 32


class Answers(Protocol):
    """The choices of one HTTP request."""

    async def receive(self) -> Sequence[News]:
        """Wait for news, and take all there is. Cancelling the wait loses nothing."""
        ...

    def take(self) -> Sequence[News]:
        """The news that are there, without waiting."""
        ...

    def watch(self, call: Callable[[], None] | None) -> bool:
        """Call back whenever there are news, at once if there are any; ``None``: no longer.

        Returns:
            False if they can only be waited for.
        """
        ...

    def tokens(self, index: int, /) -> Tokens:
        """Everything received so far of one choice."""
        ...


@define
class _One:
    """A single choice: read where it is needed, without a task in between."""

    _stream: AnswerStream

    async def receive(self) -> Sequence[News]:
        return [(0, await _next(self._stream))]

    def take(self) -> Sequence[News]:
        try:
            piece = self._stream.take()
        except Exception as error:
            return [(0, _failure(error))]
        return () if piece is None else [(0, _checked(piece))]

    def watch(self, call: Callable[[], None] | None) -> bool:
        self._stream.watch(call)
        return True

    def tokens(self, index: int) -> Tokens:
        return self._stream.tokens


@define
class _Many:
    """Several choices, each pumped by its own task into one channel."""

    _news: "trio.MemoryReceiveChannel[News]"
    _tokens: dict[int, Tokens] = field(factory=dict[int, Tokens])

    async def receive(self) -> Sequence[News]:
        return [await self._news.receive(), *self.take()]

    def take(self) -> Sequence[News]:
        news: list[News] = []
        while True:
            try:
                news.append(self._news.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                return news

    def watch(self, call: Callable[[], None] | None) -> bool:
        return False

    def tokens(self, index: int) -> Tokens:
        return self._tokens[index]

    async def pump(
        self,
        backend: GatewayBackend,
        index: int,
        batch: ExecuteBatch,
        news: "trio.MemorySendChannel[News]",
        limiter: trio.CapacityLimiter,
    ) -> None:
        async with limiter:
            try:
                async with backend.submit(batch) as stream:
                    last = await self._forward(index, stream, news)
            except Exception as error:
                last = error
        # Told after the block was left: the news of the last choice's end cancels what still runs.
        await news.send((index, last))

    async def _forward(
        self, index: int, stream: AnswerStream, news: "trio.MemorySendChannel[News]"
    ) -> TokenChunk | Exception:
        while True:
            piece = await _next(stream)
            self._tokens[index] = stream.tokens
            if isinstance(piece, Exception) or piece.finish_reason is not None:
                return piece
            await news.send((index, piece))


@asynccontextmanager
async def open_answers(
    backend: GatewayBackend, batches: Sequence[ExecuteBatch], *, max_parallel: int
) -> AsyncGenerator[Answers]:
    """Submit the batches; choice ``index`` answers ``batches[index]``.

    Raises:
        InferenceError: the client's key has no tokens or no budget for them, or a single batch was refused on
            submission. With several, such refusals are news.
    """
    with reserved(batches):
        async with _submitted(backend, batches, max_parallel) as answers:
            yield answers


@asynccontextmanager
async def _submitted(
    backend: GatewayBackend, batches: Sequence[ExecuteBatch], max_parallel: int
) -> AsyncGenerator[Answers]:
    if len(batches) == 1:
        async with backend.submit(batches[0]) as stream:
            yield _One(stream)
        return
    send, receive = trio.open_memory_channel[News](READ_AHEAD)
    many = _Many(receive)
    limiter = trio.CapacityLimiter(max_parallel)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        for index, batch in enumerate(batches):
            nursery.start_soon(many.pump, backend, index, batch, send, limiter)
        try:
            yield many
        except Exception as error:
            # Raised through the nursery it would come out wrapped in a group.
            failure = error
        finally:
            nursery.cancel_scope.cancel(reason="the answer ended")
    if failure is not None:
        raise failure


async def _next(stream: AnswerStream) -> TokenChunk | Exception:
    try:
        return _checked(await stream.receive())
    except Exception as error:
        return _failure(error)


def _failure(error: Exception) -> Exception:
    if isinstance(error, StopAsyncIteration):
        return Internal("the answer ended without a finish reason")
    return error


def _checked(piece: TokenChunk) -> TokenChunk | Exception:
    if piece.finish_reason is FinishReason.ERROR:
        return Internal("the answer ended with an error that has no name")
    return piece


def usage_of(batch: ExecuteBatch, tokens: Tokens) -> TokenUsage:
    """The usage that was reported, or counted from the token ids where a runner reports none."""
    if tokens.usage != TokenUsage():
        return tokens.usage
    return TokenUsage(input_tokens=len(batch.prompt_ids or ()), output_tokens=len(tokens.token_ids))
