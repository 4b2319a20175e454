"""One TCP connection, driven so that nothing a peer sends, or does not read, harms anything but itself.

Hypercorn's protocol code is kept; what moves bytes between it and the socket is ours. The stock driver lets an
exception in one connection end the process, waits for ever in a write that the peer does not read, forgets the
keep-alive timer after a response that ended with the request's own cancellation, and leaks connections whose peer
sent bytes ahead. Each of these has a test that fails with the stock driver.
"""

import socket
import struct
from contextlib import suppress

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, LifespanState

from .logs import Log
from .settings import ServerSettings

__all__ = ["GuardedConnection", "Stream"]

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]

# A write makes progress when this much of it is taken; the write deadline counts from the last progress.
WRITE_PIECE = 64 * 1024
# Reads that the protocol has not looked at yet. Behind it the kernel pushes back on the peer.
READ_AHEAD = 4

_PEER_TROUBLE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)


class GuardedConnection(TCPServer):
    """Serves one connection until either side is done with it. Await ``run`` once.

    Args:
        app: the ASGI application, in Hypercorn's wrapper.
        config: Hypercorn's settings.
        context: shared by the connections of one server.
        state: the lifespan state, copied into each request's scope.
        stream: the accepted connection; it is closed when ``run`` ends.
        settings: our limits.
        log: where trouble is written.
    """

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        state: LifespanState,
        stream: Stream,
        *,
        settings: ServerSettings,
        log: Log,
    ) -> None:
        # The annotation of the parent says SSL only; its code serves both.
        super().__init__(app, config, context, state, stream)  # pyright: ignore[reportArgumentType]
        self._stream = stream
        self._settings = settings
        self._log = log
        self._reading = trio.CancelScope()
        self._writing = trio.CancelScope()
        # The protocol has ended the connection: what still arrives is dropped.
        self._lingering = False
        # Nobody is at the other end any more: what we would write is dropped.
        self._gone = False

    async def run(self) -> None:
        """Serve the connection. Raises nothing but cancellation: every failure ends here."""
        try:
            await super().run()
        except* _PEER_TROUBLE as errors:
            self._log.debug("connection lost", exc_info=errors)
        except* Exception as errors:
            self._log.error("connection failed", exc_info=errors)
        finally:
            await trio.aclose_forcefully(self._stream)

    async def protocol_send(self, event: Event) -> None:
        """Do what the protocol asks for: write, close, or note that the connection turned idle or busy."""
        if isinstance(event, RawData):
            if event.data:
                await self._write(event.data)
        elif isinstance(event, Closed):
            await self._finish()
        elif isinstance(event, Updated):
            # Called by the request's own task, which the end of its response has just cancelled. Unshielded, the
            # keep-alive timer would never be armed.
            with trio.CancelScope(shield=True):
                await self._turn(idle=event.idle)

    async def _turn(self, *, idle: bool) -> None:
        if idle and not self._gone:
            await self.idle_task.restart(self._task_group, self._idle_timeout)  # pyright: ignore[reportUnknownMemberType]
        else:
            await self.idle_task.stop()

    async def _write(self, data: bytes) -> None:
        # The shield keeps a cancelled request from leaving half a frame on a connection that others share. It ends
        # at the write deadline, and at once when the reader learns that the peer, or this server, is gone.
        async with self.send_lock:
            if self._gone:
                return
            self._writing = trio.CancelScope(shield=True)
            try:
                with self._writing:
                    await self._send_pieces(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._lose("the peer reset the connection")
            else:
                if self._writing.cancelled_caught and not self._gone:
                    self._log.warning("connection cut", reason="the peer stopped reading")
                    self._reset()
                    self._lose("the peer stopped reading")

    async def _send_pieces(self, data: bytes) -> None:
        for start in range(0, len(data), WRITE_PIECE):
            self._writing.deadline = trio.current_time() + self._settings.write_timeout
            await self._stream.send_all(data[start : start + WRITE_PIECE])

    def _lose(self, reason: str) -> None:
        # The reader does the rest: it tells the protocol, which tells the application.
        self._gone = True
        self._reading.cancel(reason=reason)

    def _reset(self) -> None:
        # Closing then drops the megabytes that the kernel would keep offering to a peer that reads nothing.
        sock = getattr(self._stream, "transport_stream", self._stream).socket
        with suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def _finish(self) -> None:
        """End our side, and give the peer a moment to read the answer and end its own.

        Closing with unread input makes the kernel send a reset, which can take the answer away from the peer.
        """
        self._lingering = True
        limit = trio.current_time() + self._settings.linger
        self._reading.deadline = min(self._reading.deadline, limit)
        with trio.CancelScope(deadline=limit, shield=True):
            async with self.send_lock:
                await self._end_our_side()
            await self.protocol.handle(Closed())

    async def _end_our_side(self) -> None:
        if isinstance(self._stream, trio.SocketStream):
            try:
                await self._stream.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self._lose("the peer reset the connection")

    async def _read_data(self) -> None:
        try:
            with self._reading:
                await self._read()
        finally:
            # Also on the way out of a cancelled server: a write that is stuck would hold it up.
            self._gone = True
            self._writing.cancel(reason="nobody is left to read")
        await self.idle_task.stop()
        await self.protocol.handle(Closed())

    async def _read(self) -> None:
        # Two tasks, because the protocol stops taking input while a request is in progress and more is waiting
        # behind it. A peer that leaves then must still be noticed.
        async with trio.open_nursery() as nursery:
            arrived, unseen = trio.open_memory_channel[bytes](READ_AHEAD)
            nursery.start_soon(self._feed, unseen)
            await self._receive(arrived)
            nursery.cancel_scope.cancel(reason="the peer closed its side")

    async def _receive(self, arrived: "trio.MemorySendChannel[bytes]") -> None:
        while True:
            try:
                data = bytes(await self._stream.receive_some(MAX_RECV))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return
            if not data:
                return
            if not self._lingering:
                await arrived.send(data)

    async def _feed(self, unseen: "trio.MemoryReceiveChannel[bytes]") -> None:
        async for data in unseen:
            if not self._lingering:
                await self.protocol.handle(RawData(data))

    async def _close(self) -> None:
        await trio.aclose_forcefully(self._stream)
