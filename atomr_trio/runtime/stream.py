"""One request's answer on its way from the runner to its reader.

This is the token path, so nothing here goes through a mailbox (law 6): a chunk is appended inline, the reader is
woken once, and what came while it slept is one merged chunk. It is also where law 5 is kept: the first terminal
event wins, whoever brings it, and everything later is dropped.
"""

from collections.abc import Callable
from functools import reduce

import trio
from attrs import evolve

from atomr_trio.core import FinishReason, InferenceError, TokenChunk, Tokens, TokenUsage

__all__ = ["UNREAD_CHUNKS", "TokenStream"]

UNREAD_CHUNKS = 64
"""How far ``send`` lets a runner run ahead of the reader."""


class TokenStream:
    """A single-reader stream of chunks that ends exactly once: finished, failed or cancelled.

    The writer's side is a ``ChunkSink``.

    Args:
        request_id: put into every chunk.
        input_tokens: what the usage says if the runner reports none.
    """

    def __init__(self, request_id: str, *, input_tokens: int = 0) -> None:
        self.request_id = request_id
        self.tokens: Tokens = Tokens(request_id=request_id)
        self.error: InferenceError | None = None
        self.cancel_reason: str | None = None
        self.dropped: int = 0
        self._input_tokens = input_tokens
        self._pending: list[TokenChunk] = []
        self._chunks = 0
        self._ended = trio.Event()
        self._started = trio.Event()
        self._readable = trio.Event()
        self._writable = trio.Event()
        self.lease: int = 0
        self._parted = trio.Event()
        self._told = trio.Event()
        self._on_cancel: list[Callable[[str], None]] = []

    # The writer's side.

    def push(self, chunk: TokenChunk) -> None:
        """Append a chunk without waiting. After the end it is dropped and counted."""
        if self.ended:
            self.dropped += 1
            return
        chunk = evolve(chunk, request_id=self.request_id)
        self._chunks += bool(chunk.text_delta)
        if chunk.finish_reason is not None and chunk.usage is None and self.tokens.usage == TokenUsage():
            chunk = evolve(chunk, usage=self._counted_usage(chunk))
        self.tokens.append(chunk)
        self._pending.append(chunk)
        if chunk.finish_reason is not None:
            self._end()
        self._told.set()
        self._wake_reader()

    async def send(self, chunk: TokenChunk) -> None:
        """Append a chunk; waits while the reader is ``UNREAD_CHUNKS`` behind."""
        while len(self._pending) >= UNREAD_CHUNKS and not self.ended:
            self._writable = trio.Event()
            await self._writable.wait()
        self.push(chunk)
        await trio.lowlevel.checkpoint()

    def finish(self, reason: FinishReason = FinishReason.STOP) -> None:
        """End the answer well. Does nothing after the end."""
        if not self.ended:
            self.push(TokenChunk(finish_reason=reason))

    def fail(self, error: InferenceError) -> None:
        """End the answer with an error. Does nothing after the end."""
        if self.ended:
            return
        self.error = error
        self.tokens.finish_reason = FinishReason.ERROR
        self._stop_writer(str(error))

    def mark_started(self) -> None:
        """Say that the request has left the queue."""
        self._started.set()

    # The reader's side.

    async def receive(self) -> TokenChunk:
        """Wait for new chunks and return them merged into one.

        Raises:
            InferenceError: the answer failed; what came before it was returned first.
            StopAsyncIteration: the answer is complete, or the stream was cancelled.
        """
        while not self._pending:
            if self.error is not None:
                raise self.error
            if self.ended:
                raise StopAsyncIteration
            self._readable = trio.Event()
            await self._readable.wait()
        chunks, self._pending = self._pending, []
        self._writable.set()
        return chunks[0] if len(chunks) == 1 else reduce(_merge, chunks)

    async def collect(self) -> Tokens:
        """Wait for the end and return the whole answer.

        Raises:
            InferenceError: the answer failed.
        """
        await self._ended.wait()
        if self.error is not None:
            raise self.error
        return self.tokens

    def cancel(self, reason: str) -> None:
        """Say that nobody reads any more; the runner is cancelled at once. Does nothing after the end."""
        if self.ended:
            return
        self.cancel_reason = reason
        self._stop_writer(reason)

    # For the actors in between.

    @property
    def ended(self) -> bool:
        """Whether the terminal event has happened."""
        return self._ended.is_set()

    async def wait_ended(self) -> None:
        """Wait for the terminal event."""
        await self._ended.wait()

    async def wait_started(self) -> None:
        """Wait until the request has left the queue, or ended in it."""
        await self._started.wait()

    def call_on_cancel(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Call back, with a reason, when the stream ends by any other hand than the writer's.

        Returns:
            Takes it back; to be called when the writer is done.
        """
        if self.ended:
            callback(self.cancel_reason or "the request is over")
            return _nothing
        self._on_cancel.append(callback)
        return lambda: self._on_cancel.remove(callback) if callback in self._on_cancel else None

    async def wait_told(self, tokens: int) -> None:
        """Wait until more than so many tokens were told, or the end."""
        while len(self.tokens.token_ids) <= tokens and not self.ended:
            # Several may wait: an event that somebody waits for is kept.
            if self._told.is_set():
                self._told = trio.Event()
            await self._told.wait()

    def lend(self) -> None:
        """Give the writer's side to an engine; it has the number ``lease`` from now on."""
        if not self.ended:
            self.lease += 1
            self._parted = trio.Event()
            self._started = trio.Event()

    def give_back(self, lease: int) -> None:
        """Say that the engine with this lease is gone. Does nothing after the end, or if another one has the stream."""
        if lease == self.lease:
            self._parted.set()
            self._started.set()

    async def wait_parted(self) -> None:
        """Wait for the end, or for the engine to be gone."""
        await self._parted.wait()

    def _stop_writer(self, reason: str) -> None:
        self._end()
        self._wake_reader()
        for callback in self._on_cancel:
            callback(reason)
        self._on_cancel.clear()

    def _end(self) -> None:
        self._ended.set()
        self._parted.set()
        self._told.set()
        self._started.set()
        self._writable.set()

    def _wake_reader(self) -> None:
        self._readable.set()

    def _counted_usage(self, last: TokenChunk) -> TokenUsage:
        # A runner that knows only text: each chunk counts as a token, as clients count.
        tokens = len(self.tokens.token_ids) + len(last.token_ids)
        return TokenUsage(self._input_tokens, tokens or self._chunks)


def _nothing() -> None:
    pass


def _merge(first: TokenChunk, second: TokenChunk) -> TokenChunk:
    usages = [chunk.usage for chunk in (first, second) if chunk.usage is not None]
    return TokenChunk(
        request_id=first.request_id,
        text_delta=first.text_delta + second.text_delta,
        token_ids=first.token_ids + second.token_ids,
        logprobs=first.logprobs + second.logprobs,
        details=first.details + second.details,
        tool_call_delta=second.tool_call_delta or first.tool_call_delta,
        usage=reduce(TokenUsage.__add__, usages) if usages else None,
        finish_reason=second.finish_reason or first.finish_reason,
    )
