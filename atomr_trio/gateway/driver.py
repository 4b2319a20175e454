"""One TCP connection, driven so that nothing a peer sends, or does not read, harms anything but itself.

Hypercorn's protocol code is kept; what moves bytes between it and the socket is ours. The stock driver lets an
exception in one connection end the process, waits for ever in a write that the peer does not read, forgets the
keep-alive timer after a response that ended with the request's own cancellation, and leaks connections whose peer
sent bytes ahead. Each of these has a test that fails with the stock driver.
"""

import os
import socket
import struct
from contextlib import suppress
from typing import cast

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, LifespanState
from hypercorn.utils import parse_socket_addr  # pyright: ignore[reportUnknownVariableType]

from .direct import Introduced
from .idle import IdleTimer
from .logs import Log
from .protocols import Protocols
from .rounds import Rounds
from .settings import ServerSettings

__all__ = ["GuardedConnection", "Stream"]

Stream = trio.SocketStream | trio.SSLStream[trio.SocketStream]

# A write makes progress when this much of it is taken; the write deadline counts from the last progress.
WRITE_PIECE = 64 * 1024
# Reads that the protocol has not looked at yet. Behind it the kernel pushes back on the peer.
READ_AHEAD = 4

# A response's, not that of a 100 or 101, which the peer waits for.
_FINAL_HEAD = tuple(b"HTTP/1.1 %d" % first for first in (2, 3, 4, 5))

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
        rounds: in which the server writes its streams; ``None``: each stream has a task that does it.
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
        rounds: Rounds | None = None,
    ) -> None:
        # The annotation of the parent says SSL only; its code serves both.
        super().__init__(Introduced(app, self), config, context, state, stream)  # pyright: ignore[reportArgumentType]
        self._stream = stream
        self._settings = settings
        self._log = log
        self.rounds = rounds
        self._reading = trio.CancelScope()
        self._writing = trio.CancelScope()
        # The protocol has ended the connection: what still arrives is dropped.
        self._lingering = False
        # Nobody is at the other end any more: what we would write is dropped.
        self._gone = False
        # The head of a response that goes with the first bytes of its body.
        self._holding = False
        self._head = b""

    async def run(self) -> None:
        """Serve the connection. Raises nothing but cancellation: every failure ends here."""
        try:
            await self._serve()
        except* _PEER_TROUBLE as errors:
            self._log.debug("connection lost", exc_info=errors)
        except* Exception as errors:
            self._log.error("connection failed", exc_info=errors)
        finally:
            await trio.aclose_forcefully(self._stream)

    async def _serve(self) -> None:
        if (alpn := await self._shake_hands()) is None:
            return
        sock = _socket_of(self._stream)
        client = parse_socket_addr(sock.family, sock.getpeername())
        server = parse_socket_addr(sock.family, sock.getsockname())
        state = ConnectionState(self.state)
        async with TaskGroup() as task_group:
            self._task_group = task_group
            whose = (self.app, self.config, self.context, task_group, state, self._is_encrypted, client, server)
            timeout = self._settings.write_timeout
            self.protocol: ProtocolWrapper = Protocols(*whose, self.protocol_send, alpn, write_timeout=timeout)
            await self.protocol.initiate()
            self._keep_alive = IdleTimer(self.config.keep_alive_timeout, self.context.terminated)
            self._keep_alive.turn(idle=True)
            task_group.spawn(self._end_when_idle)  # pyright: ignore[reportUnknownMemberType]
            await self._read_data()

    async def _end_when_idle(self) -> None:
        if await self._keep_alive.wait():
            with trio.CancelScope(shield=True):
                await self._initiate_server_close()

    @property
    def _is_encrypted(self) -> bool:
        return isinstance(self._stream, trio.SSLStream)

    async def _shake_hands(self) -> str | None:
        """The protocol that TLS agreed on; ``None``: the peer does not get through its handshake."""
        if isinstance(self._stream, trio.SocketStream):
            return "http/1.1"
        with trio.move_on_after(self.config.ssl_handshake_timeout):
            await self._stream.do_handshake()
            return cast("str | None", self._stream.selected_alpn_protocol()) or "http/1.1"
        return None

    async def protocol_send(self, event: Event) -> None:
        """Do what the protocol asks for: write, close, or note that the connection turned idle or busy."""
        if isinstance(event, RawData):
            await self._send(event.data)
        elif isinstance(event, Closed):
            await self._finish()
        elif isinstance(event, Updated):
            # Called by the request's own task, which the end of its response has just cancelled: first what needs no
            # checkpoint.
            self._keep_alive.turn(idle=event.idle and not self._gone)
            await self.write(b"")

    def hold_head(self) -> None:
        """Let the next response's head wait for the first bytes of its body, which follow at once."""
        self._holding = True

    async def _send(self, data: bytes) -> None:
        if self._holding and data.startswith(_FINAL_HEAD):
            self._holding, self._head = False, data
        elif data:
            # For an application that sends and sends: the socket may take all of it at once.
            await trio.lowlevel.checkpoint()
            await self.write(data)

    def write_now(self, data: bytes) -> int:
        """Write without waiting; return how many bytes are settled: taken, or dropped because nobody is there.

        Not for TLS, where nothing is written.
        """
        if self._gone or self._lingering:
            return len(data)
        # What another task has begun to write goes first.
        if self.send_lock.locked() or not isinstance(self._stream, trio.SocketStream):
            return 0
        head, self._head = self._head, b""
        if not (head or data):
            return 0
        try:
            taken = os.write(self._stream.socket.fileno(), head + data)
        except BlockingIOError:
            taken = 0
        except OSError:
            self._lose("the peer reset the connection")
            return len(data)
        self._head = head[taken:]
        return max(0, taken - len(head))

    async def write(self, data: bytes) -> None:
        """Write, waiting for the peer up to the write deadline. If it has not taken it by then, it is cut."""
        taken = self.write_now(data)
        if taken < len(data) or self._head:
            head, self._head = self._head, b""
            # The shield keeps a cancelled request from leaving half a frame on a connection that others share. It ends
            # at the write deadline, and at once when the reader learns that the peer, or this server, is gone.
            with trio.CancelScope(shield=True):
                await self._wait_and_write(head + data[taken:])

    async def _wait_and_write(self, data: bytes) -> None:
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
        with suppress(OSError):
            _socket_of(self._stream).setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def _finish(self) -> None:
        """End our side, and give the peer a moment to read the answer and end its own.

        Closing with unread input makes the kernel send a reset, which can take the answer away from the peer.
        """
        await self.write(b"")
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
        self._keep_alive.stop()
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


def _socket_of(stream: Stream) -> trio.socket.SocketType:
    return stream.socket if isinstance(stream, trio.SocketStream) else stream.transport_stream.socket
