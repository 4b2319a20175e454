"""Writes an event stream to its client: each piece as it comes, and a sign of life where there is silence.

A piece costs one system call, and its share of a round. Whatever can be taken out of its way is: no lock, no scope, no
wake-up of its own, as long as the socket takes it at once.
"""

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import Protocol, Self

import trio
from attrs import define
from hypercorn.typing import ASGISendEvent
from quart.wrappers.response import ResponseBody

from .rounds import Rounds
from .wire import PING

__all__ = ["AsgiWriter", "EventBody", "Writer", "pump"]


class EventBody(ResponseBody):
    """A response body of events. Cancelling the wait for the next piece loses nothing.

    Attributes:
        heartbeat: seconds of silence after which a sign of life is sent.
        has_news: the first piece is there; if not, a sign of life goes out at once, with the headers.
        ping: the sign of life.
    """

    heartbeat: float

    @property
    @abstractmethod
    def has_news(self) -> bool:
        """Whether the next piece is there."""

    @property
    def ping(self) -> bytes:
        """What is sent in silence."""
        return PING

    @property
    def is_over(self) -> bool:
        """Whether the piece that came last is the last one."""
        return False

    async def let_go(self) -> None:
        """Give back what the body holds: before the last piece goes, so that a client who asks again finds its place
        free."""

    def watch(self, call: Callable[[], None] | None) -> bool:
        """Call back whenever there are news for `take`, at once if there are any; ``None``: no longer.

        Returns:
            False if this body can only be waited for.
        """
        return False

    def take(self) -> bytes:
        """The next piece, if it is there; else nothing."""
        return b""

    @abstractmethod
    async def __anext__(self) -> bytes:
        """The next piece."""

    def __aiter__(self) -> Self:
        return self


class Writer(Protocol):
    """Takes the pieces of one response."""

    @property
    def rounds(self) -> Rounds | None:
        """In which the pieces are written; ``None``: by the request's own task."""
        ...

    def now(self, piece: bytes, /) -> bytes:
        """Write without waiting; return what is left, in the form that ``rest`` takes."""
        ...

    async def rest(self, data: bytes, /) -> None:
        """Write what ``now`` has left."""
        ...


@define
class AsgiWriter:
    """Writes as any ASGI application does: through all layers of the server."""

    _send: Callable[[ASGISendEvent], Awaitable[None]]
    rounds: Rounds | None = None

    def now(self, piece: bytes) -> bytes:
        """Return all of it: here every piece is waited for."""
        return piece

    async def rest(self, data: bytes) -> None:
        """Send a piece."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})


async def pump(body: EventBody, writer: Writer) -> None:
    """Write a body up to its end."""
    await _Pump(body, writer, trio.current_time()).run()


@define
class _Pump:
    _body: EventBody
    _writer: Writer
    _spoke: float
    _rest: bytes = b""
    _last: bytes = b""
    _ended: bool = False
    # The request's own task sleeps while pieces are written in rounds, and is woken for all that is more than that.
    _sleep: trio.Event | None = None
    _in_round: bool = False
    _failure: Exception | None = None

    async def run(self) -> None:
        if not self._body.has_news:
            self._put(self._body.ping)
        while self._rest or not self._ended:
            if self._rest:
                await self._put_rest()
                continue
            # One scope for many pieces: it ends a heartbeat after the last word that was known when it began. If there
            # was another one meanwhile, the next scope waits for what is left of the time. No write is in it that
            # could be cut.
            with trio.CancelScope(deadline=self._spoke + self._body.heartbeat):
                await self._put_what_comes()
            if self._last:
                # Not within the scope: what is given back may be scopes that are older than it.
                await self._body.let_go()
                self._put(self._last)
                self._last, self._ended = b"", True
            elif not (self._ended or self._rest) and trio.current_time() >= self._spoke + self._body.heartbeat:
                self._put(self._body.ping)

    async def _put_what_comes(self) -> None:
        if self._writer.rounds is not None and self._body.watch(self._hear):
            await self._sleep_through_rounds()
            return
        async for piece in self._body:
            if not self._put_some(piece):
                return
        self._ended = True

    async def _sleep_through_rounds(self) -> None:
        self._sleep = trio.Event()
        try:
            await self._sleep.wait()
        finally:
            self._sleep = None
            self._body.watch(None)
        if self._failure is not None:
            raise self._failure

    def _hear(self) -> None:
        if not self._in_round and self._writer.rounds is not None:
            self._in_round = True
            self._writer.rounds.add(self._put_news)

    def _put_news(self) -> None:
        self._in_round = False
        # Its own task may have been woken meanwhile, by a heartbeat or the end of the request.
        if self._sleep is None or self._sleep.is_set():
            return
        try:
            piece = self._body.take()
            if not piece or self._put_some(piece):
                return
        except Exception as error:
            self._failure = error
        self._sleep.set()

    def _put_some(self, piece: bytes) -> bool:
        """Write a piece; return whether the next one may follow at once."""
        if self._body.is_over:
            self._last = piece
        else:
            self._put(piece)
        return not (self._last or self._rest)

    def _put(self, piece: bytes) -> None:
        self._spoke = trio.current_time()
        self._rest = self._writer.now(piece)

    async def _put_rest(self) -> None:
        rest, self._rest = self._rest, b""
        await self._writer.rest(rest)
        self._spoke = trio.current_time()
