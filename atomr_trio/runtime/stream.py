"""One request's answer on its way from the runner to its reader.

This is the token path, so nothing here goes through a mailbox (law 6): a chunk is appended inline, the reader is
woken once, and what came while it slept is one merged chunk. It is also where law 5 is kept: the first terminal
event wins, whoever brings it, and everything later is dropped.
"""

from collections.abc import Callable

import trio
from attrs import evolve

from atomr_trio.core import FinishReason, InferenceError, TokenChunk, Tokens, TokenUsage

from .chunks import merged, tokens_of

__all__ = ["UNREAD_CHUNKS", "TokenStream"]

UNREAD_CHUNKS = 64
"""How far ``send`` lets a runner run ahead of the reader."""


class TokenStream:
    """A single-reader stream of chunks that ends exactly once: finished, failed or cancelled.

    The writer's side is a ``ChunkSink``. ``dropped`` counts the chunks that came after the end, ``late_tokens`` the
    tokens in them, if the end was that the client left.

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
        self.late_tokens: int = 0
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
        self._on_news: Callable[[], None] | None = None
        self._on_end: list[Callable[[], object]] = []
        self._on_part: list[Callable[[], object]] = []
        self._on_late: list[Callable[[int], None]] = []

    # The writer's side.

    def push(self, chunk: TokenChunk) -> None:
        """Append a chunk without waiting. After the end it is dropped and counted: see ``late_tokens``."""
        if self.ended:
            self._drop(chunk)
            return
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
        """Wait for new chunks and return them merged into one. Cancelling the wait loses nothing.

        Raises:
            InferenceError: the answer failed; what came before it was returned first.
            StopAsyncIteration: the answer is complete, or the stream was cancelled.
        """
        if self._pending:
            # Also for a reader that is never fast enough to wait: others run, and what they bring is merged.
            await trio.lowlevel.checkpoint()
        while (chunk := self.take()) is None:
            self._readable = trio.Event()
            await self._readable.wait()
        return chunk

    def take(self) -> TokenChunk | None:
        """Return new chunks merged into one, without waiting; ``None``: there are none.

        Raises:
            InferenceError, StopAsyncIteration: as `receive` does.
        """
        if not self._pending:
            if self.error is not None:
                raise self.error
            if self.ended:
                raise StopAsyncIteration
            return None
        chunk, self._pending = merged(self.request_id, self._pending)
        self._writable.set()
        if self._pending:
            self._wake_reader()
        return chunk

    def watch(self, call: Callable[[], None] | None) -> None:
        """Call back whenever there is something to `take`, at once if there is; ``None``: no longer.

        The call comes from within the writer's: it must be quick, and must not raise.
        """
        self._on_news = call
        if self._pending or self.ended:
            self._wake_reader()

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

    @property
    def output_tokens(self) -> int:
        """Tokens so far: reported, or else counted. Of a runner that knows only text, a chunk is a token."""
        return self.tokens.usage.output_tokens or len(self.tokens.token_ids) or self._chunks

    async def wait_ended(self) -> None:
        """Wait for the terminal event."""
        await self._ended.wait()

    async def wait_started(self) -> None:
        """Wait until the request has left the queue, or ended in it."""
        waited = None
        while waited is not self._started:
            waited = self._started
            await waited.wait()

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

    def call_on_end(self, callback: Callable[[], object]) -> None:
        """Call back when the terminal event happens, whoever brings it; at once if it has happened."""
        if self.ended:
            callback()
        else:
            self._on_end.append(callback)

    def call_on_part(self, callback: Callable[[], object]) -> None:
        """Call back, once, at the end or when the engine is gone that has the stream now; at once if it is so."""
        if self._parted.is_set():
            callback()
        else:
            self._on_part.append(callback)

    def call_when_late(self, callback: Callable[[int], None]) -> None:
        """Call back, with their number, when tokens come for a client that has left."""
        self._on_late.append(callback)

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
            # Who waits already, waits on for this engine to begin.
            before, self._started = self._started, trio.Event()
            before.set()

    def give_back(self, lease: int) -> None:
        """Say that the engine with this lease is gone. Does nothing after the end, or if another one has the stream."""
        if lease == self.lease:
            self._part()
            self._started.set()

    async def wait_parted(self) -> None:
        """Wait for the end, or for the engine to be gone."""
        await self._parted.wait()

    def _drop(self, chunk: TokenChunk) -> None:
        self.dropped += 1
        tokens = 0 if self.cancel_reason is None else tokens_of(chunk)
        self.late_tokens += tokens
        for callback in self._on_late if tokens else ():
            callback(tokens)

    def _stop_writer(self, reason: str) -> None:
        self._end()
        self._wake_reader()
        for callback in self._on_cancel:
            callback(reason)
        self._on_cancel.clear()

    def _end(self) -> None:
        self._ended.set()
        self._told.set()
        self._started.set()
        self._writable.set()
        self._part()
        for callback in self._on_end:
            callback()
        self._on_end.clear()

    def _part(self) -> None:
        self._parted.set()
        callbacks, self._on_part = self._on_part, []
        for callback in callbacks:
            callback()

    def _wake_reader(self) -> None:
        self._readable.set()
        if self._on_news is not None:
            self._on_news()

    def _counted_usage(self, last: TokenChunk) -> TokenUsage:
        # A runner that knows only text: each chunk counts as a token, as clients count.
        tokens = len(self.tokens.token_ids) + len(last.token_ids)
        return TokenUsage(self._input_tokens, tokens or self._chunks)


def _nothing() -> None:
    pass
