"""Streams that outlive the connection that they were asked for on, so that the client can come back for the rest."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Protocol, Self

import trio
from attrs import define, field, frozen

from atomr_trio.core import BadRequest

from .pump import EventBody
from .replay import ReplayRing, StreamNotFound
from .streaming import EventStream
from .wire import PING

__all__ = ["Begin", "KeptStream", "KeptStreams", "Replay", "Spawn"]

Begin = Callable[[AsyncExitStack], Awaitable[EventStream]]
"""Makes the events of a stream; enters what they need into the stack."""


class Spawn(Protocol):
    """Starts a task that outlives requests, and ends with the server."""

    def __call__(self, fn: Callable[..., Awaitable[object]], /, *args: object, name: str | None = None) -> None:
        """Call ``fn(*args)`` in a task."""
        ...


@define(eq=False)
class KeptStream:
    """One stream: a task that takes its events, and at most one reader at a time, who may go and come back.

    The task takes no further events while as many are kept as there is room for and the reader has not read them: they
    wait where they come from, merged. While there is no reader nothing is dropped.

    Args:
        id: what clients ask for.
        owner: whose it is; for others it is not there.
        window: seconds without a reader after which it is forgotten, and the answer cancelled.
        ring: keeps its events.
        ping: what its readers get in silence.
    """

    id: str
    owner: str
    _window: float
    _ring: ReplayRing
    ping: bytes = PING
    failure: Exception | None = field(init=False, default=None)
    ended: bool = field(init=False, default=False)
    _read: int = field(init=False, default=0)
    _reader: "Replay | None" = field(init=False, default=None)
    _begun: trio.Event = field(init=False, factory=trio.Event)
    _changed: trio.Event = field(init=False, factory=trio.Event)
    _scope: trio.CancelScope = field(init=False, factory=trio.CancelScope)

    async def run(self, begin: Begin) -> None:
        """Take the events; returns when the stream is forgotten."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._take_events, begin)
                await self._wait_forgotten()
                nursery.cancel_scope.cancel(reason="nobody came back for the stream")

    async def wait_begun(self) -> None:
        """Wait until there is a first event, or a ``failure`` instead."""
        await self._begun.wait()

    def forget(self, reason: str) -> None:
        """Cancel the answer, if it still runs, and end its reader."""
        self.ended = True
        self._wake()
        self._scope.cancel(reason=reason)

    def attach(self, reader: "Replay", after: int) -> None:
        """Give the stream to a reader who has read so far; who had it before gets no more of it."""
        self._reader, self._read = reader, after
        self._wake()

    def detach(self, reader: "Replay") -> None:
        """Take it from this reader."""
        if self._reader is reader:
            self._reader = None
            self._wake()

    def check(self, after: int) -> None:
        """Raise if a reader who has read so far cannot go on.

        Raises:
            BadRequest: there is no such event yet.
            ReplayGone: events were dropped that it lacks.
        """
        if after > self._ring.last:
            raise BadRequest(f"the stream has only {self._ring.last} events so far")
        self._ring.after(after)

    def has_more(self, after: int) -> bool:
        """Say whether there are events after this one."""
        return self._ring.last > after

    def is_read_by(self, reader: "Replay") -> bool:
        """Say whether the stream is this reader's."""
        return self._reader is reader

    def take(self) -> bytes:
        """Return all events that the reader has not read."""
        written, self._read = self._ring.after(self._read), self._ring.last
        if written:
            self._wake()
        return written

    async def wait_changed(self) -> None:
        """Wait until there is something to look at."""
        await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _take_events(self, begin: Begin) -> None:
        async with AsyncExitStack() as release:
            try:
                events = await begin(release)
            except Exception as error:
                self.failure = error
                self._scope.cancel(reason="the request failed")
                return
            finally:
                self._begun.set()
            await self._copy(events)
        self.ended = True
        self._wake()

    async def _copy(self, events: EventStream) -> None:
        try:
            async for written in events:
                if events.is_over:
                    await events.let_go()
                await self._wait_for_room()
                self._ring.append(written)
                self._wake()
        except Exception as error:
            self._ring.append(events.fail(error))

    async def _wait_for_room(self) -> None:
        while True:
            if self._reader is not None:
                self._ring.drop(self._read)
            if not self._ring.is_full:
                return
            await self._changed.wait()

    async def _wait_forgotten(self) -> None:
        while True:
            with trio.move_on_after(self._window) as waiting:
                while self._reader is None:
                    await self._changed.wait()
            if waiting.cancelled_caught:
                return
            while self._reader is not None:
                await self._changed.wait()


@define(eq=False)
class Replay(EventBody):
    """What a client reads of a kept stream: first what it lacks, then what comes.

    Args:
        stream: which.
        after: the last event that the client has.
        heartbeat: seconds of silence after which a sign of life is sent.
    """

    _stream: KeptStream
    _after: int
    heartbeat: float

    async def __aenter__(self) -> Self:
        self._stream.attach(self, self._after)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._stream.detach(self)

    @property
    def ping(self) -> bytes:
        """That of the stream."""
        return self._stream.ping

    @property
    def has_news(self) -> bool:
        """The client lacks something that is there."""
        return self._stream.has_more(self._after)

    async def __anext__(self) -> bytes:
        """The next bytes to write.

        Raises:
            StopAsyncIteration: the stream is over, or another connection reads it now.
        """
        while self._stream.is_read_by(self):
            if written := self._stream.take():
                return written
            if self._stream.ended:
                break
            await self._stream.wait_changed()
        raise StopAsyncIteration


@frozen(eq=False)
class KeptStreams:
    """The streams that clients can come back for.

    Args:
        spawn: starts their tasks.
        window: seconds that each waits for its reader.
        capacity: bytes of events that each keeps.
        most: how many there are at once. Beyond it those go first that have ended; if there is none, a new stream is
            not kept.
    """

    _spawn: Spawn
    _window: float
    _capacity: int
    _most: int
    _streams: dict[str, KeptStream] = field(init=False, factory=dict[str, KeptStream])

    def open(self, id: str, begin: Begin, ping: bytes = PING, *, owner: str = "") -> KeptStream | None:
        """Start to keep a client's stream, whose readers get ``ping`` in silence; ``None``: there are too many."""
        if len(self._streams) >= self._most and not self._drop_one():
            return None
        stream = KeptStream(id, owner, self._window, ReplayRing(self._capacity), ping)
        self._streams[id] = stream
        self._spawn(self._run, stream, begin, name=f"stream {id}")
        return stream

    def get(self, id: str) -> KeptStream:
        """Return a stream.

        Raises:
            StreamNotFound: there is none of this id.
        """
        if id not in self._streams:
            raise StreamNotFound(id)
        return self._streams[id]

    def forget(self, id: str, reason: str) -> None:
        """End a stream.

        Raises:
            StreamNotFound: there is none of this id.
        """
        stream = self.get(id)
        del self._streams[id]
        stream.forget(reason)

    async def _run(self, stream: KeptStream, begin: Begin) -> None:
        try:
            await stream.run(begin)
        finally:
            if self._streams.get(stream.id) is stream:
                del self._streams[stream.id]

    def _drop_one(self) -> bool:
        ended = next((stream.id for stream in self._streams.values() if stream.ended), None)
        if ended is not None:
            self.forget(ended, "its place is needed")
        return ended is not None
