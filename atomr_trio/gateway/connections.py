"""How many connections there are, and what happens to one too many: it is refused, or it waits."""

import uuid

import trio
from attrs import define, field

from atomr_trio.core import Backpressure

from .errors import error_reply
from .logs import Log

__all__ = ["Connections", "PatientListener", "refuse"]

FAREWELL = 2.0
"""Seconds that a refused peer gets to take its answer."""

MAX_FAREWELLS = 64
"""How many are told why at once. Further ones are closed without a word."""

WARN_EVERY = 10.0
"""Seconds between two warnings."""

MAX_RECV = 65536


@define(eq=False)
class Connections:
    """Counts them.

    Args:
        most: how many there may be.
        open: how many there are.
        peak: how many there have been at once.
        refused: how many were one too many.
        farewells: how many of these are being told so.
    """

    most: int
    open: int = field(init=False, default=0)
    peak: int = field(init=False, default=0)
    refused: int = field(init=False, default=0)
    farewells: int = field(init=False, default=0)
    _warned: float | None = field(init=False, default=None)
    _room: trio.Event = field(init=False, factory=trio.Event)

    def enter(self, log: Log) -> bool:
        """Count a new connection, and say whether there was room for it."""
        if self.open >= self.most:
            self.refused += 1
            self._warn(log, trio.current_time())
            return False
        self.admit()
        return True

    def admit(self) -> None:
        """Count a new connection, whether there is room for it or not."""
        self.open += 1
        self.peak = max(self.peak, self.open)

    def leave(self) -> None:
        """Count the end of a connection that had room."""
        self.open -= 1
        self._room.set()
        self._room = trio.Event()

    async def wait_for_room(self) -> None:
        """Wait until there is room for one more."""
        while self.open >= self.most:
            await self._room.wait()

    def _warn(self, log: Log, now: float) -> None:
        # Not a line for each: that would be one more thing to drown in.
        if self._warned is None or now - self._warned >= WARN_EVERY:
            self._warned = now
            log.warning("connections refused", limit=self.most, refused=self.refused)


@define(eq=False)
class PatientListener(trio.abc.Listener[trio.SocketStream]):
    """Accepts only while there is room, and counts what it has accepted; the kernel keeps who waits.

    Several listeners that share their connections may each accept when there is room for one.
    """

    _listener: trio.SocketListener
    _connections: Connections

    async def accept(self) -> trio.SocketStream:
        """Wait for room, then for a connection."""
        await self._connections.wait_for_room()
        stream = await self._listener.accept()
        # Counted at once: the task that serves it begins only after the next look for room.
        self._connections.admit()
        return stream

    async def aclose(self) -> None:
        """Close the socket."""
        await self._listener.aclose()


async def refuse(stream: trio.abc.Stream, connections: Connections) -> None:
    """Say 503 to a peer for whom there is no room, and close its connection."""
    try:
        if connections.farewells < MAX_FAREWELLS:
            connections.farewells += 1
            try:
                await _say_goodbye(stream)
            finally:
                connections.farewells -= 1
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    finally:
        await trio.aclose_forcefully(stream)


async def _say_goodbye(stream: trio.abc.Stream) -> None:
    with trio.move_on_after(FAREWELL):
        await stream.send_all(_refusal())
        if isinstance(stream, trio.SocketStream):
            await stream.send_eof()
        # Closing with unread input would make the kernel send a reset, which can take the answer away.
        while await stream.receive_some(MAX_RECV):
            pass


def _refusal() -> bytes:
    request_id = f"req-{uuid.uuid4().hex}"
    reply = error_reply(Backpressure("the server has as many connections as it can have", 1.0), request_id)
    headers = (*reply.headers, ("x-request-id", request_id), ("connection", "close"))
    lines = [f"HTTP/1.1 {reply.status} Service Unavailable", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode("ascii") + reply.body
