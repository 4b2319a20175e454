"""Connections in memory that behave as badly as a network may, by seed."""

import random
from collections.abc import Generator
from contextlib import contextmanager
from operator import index

import trio
import trio.testing
from attrs import define, field

__all__ = ["SimStream", "stream_pair"]


@define
class _Wire:
    """What both ends share."""

    chance: random.Random
    max_delay: float
    tear: float
    torn: bool = False
    pipes: tuple[trio.testing.MemorySendStream, ...] = ()

    async def travel(self) -> None:
        """Take the time of one piece; the wire may tear meanwhile."""
        await trio.sleep(self.chance.uniform(0, self.max_delay))
        if not self.torn and self.chance.random() < self.tear:
            self.torn = True
            for pipe in self.pipes:
                pipe.close()

    def check(self) -> None:
        """Raise ``BrokenResourceError`` if the wire is torn."""
        if self.torn:
            raise trio.BrokenResourceError("the connection is torn")


@define(slots=False, eq=False)
class SimStream(trio.abc.HalfCloseableStream):
    """One end of a connection: bytes arrive in order, in pieces of any size, late or, once it is torn, not at all."""

    _send: trio.testing.MemorySendStream
    _receive: trio.testing.MemoryReceiveStream
    _wire: _Wire = field(repr=False)

    _sending: bool = field(default=False, init=False)
    _closed: bool = field(default=False, init=False)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, in pieces.

        Raises:
            trio.BrokenResourceError: the connection is torn, or the other end is closed.
            trio.ClosedResourceError: this end is closed.
            trio.BusyResourceError: another task is sending.
        """
        with self._alone():
            left = bytes(data)
            while True:
                size = self._wire.chance.randint(min(1, len(left)), len(left))
                await self._wire.travel()
                self._check()
                await self._send.send_all(left[:size])
                left = left[size:]
                if not left:
                    return

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until ``send_all`` might not block."""
        with self._alone():
            await trio.lowlevel.checkpoint()
            self._check()
            await self._send.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Say that nothing more will be sent."""
        with self._alone():
            await trio.lowlevel.checkpoint()
            self._check()
            await self._send.aclose()

    @contextmanager
    def _alone(self) -> Generator[None]:
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._sending = True
        try:
            yield
        finally:
            self._sending = False

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this end is closed")
        self._wire.check()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive between one byte and ``max_bytes``; ``b""`` at the end.

        Raises:
            trio.BrokenResourceError: the connection is torn.
            trio.ClosedResourceError: this end is closed.
            ValueError: ``max_bytes`` is not positive.
        """
        if max_bytes is not None and index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        most = self._wire.chance.randint(1, max_bytes or 65536)
        data = bytes(await self._receive.receive_some(most))
        self._wire.check()
        return data

    async def aclose(self) -> None:
        """Close both directions."""
        self._closed = True
        self._send.close()
        self._receive.close()
        await trio.lowlevel.checkpoint()


def stream_pair(chance: random.Random, max_delay: float, tear: float) -> tuple[SimStream, SimStream]:
    """Return the two ends of a connection; ``max_delay`` in seconds, ``tear`` in [0, 1] for each piece."""
    there, back = trio.testing.memory_stream_one_way_pair(), trio.testing.memory_stream_one_way_pair()
    wire = _Wire(chance, max_delay, tear, pipes=(there[0], back[0]))
    return SimStream(there[0], back[1], wire), SimStream(back[0], there[1], wire)
