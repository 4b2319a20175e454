"""The server's end of the socket to a device process: frames in and out, and a watch over its pulse."""

import os
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

import trio
from attrs import define, field

from atomr_trio.core import CudaContextPoisoned, InferenceError, ModelLoadError, Unrecoverable
from atomr_trio.engine import frames
from atomr_trio.engine.environment import child_command, child_environment

from ._child import ChildProcess, describe_exit

__all__ = ["DeviceLink", "Pulse", "open_device", "spawn_device"]

RECEIVE_BYTES = 1 << 16


@define
class Pulse:
    """Judges whether a device process lives. Pure; times are in seconds on one clock.

    Args:
        silence: how long it may say nothing at all.
        step: how long one step may take, unless it is compiling.
    """

    silence: float = 30.0
    step: float = 60.0
    _last: float = field(default=0.0, init=False)

    def beat(self, now: float) -> None:
        """Take note of a frame."""
        self._last = now

    def check(self, now: float) -> None:
        """Raise if it has been silent for too long.

        Raises:
            CudaContextPoisoned: it has.
        """
        if now - self._last > self.silence:
            raise CudaContextPoisoned(f"the device process said nothing for {self.silence:g}s")

    def check_step(self, heartbeat: frames.Heartbeat) -> None:
        """Raise if the step under way takes too long.

        Raises:
            CudaContextPoisoned: it does.
        """
        if heartbeat.busy_s > self.step and not heartbeat.compiling:
            raise CudaContextPoisoned(f"a step has been running for more than {self.step:g}s")


@define(eq=False)
class DeviceLink:
    """One open connection. Frames to the device are queued by ``post`` and leave together."""

    process: ChildProcess
    _stream: trio.SocketStream
    _pulse: Pulse
    _outbox: list[bytes] = field(factory=list[bytes], init=False)
    _posted: trio.Event = field(factory=trio.Event, init=False)

    def post(self, frame: frames.ParentFrame) -> None:
        """Queue a frame; never waits. What is queued is bounded by the requests in flight."""
        self._outbox.append(frames.encode(frame))
        self._posted.set()

    async def write(self) -> None:
        """Send what is queued, for ever."""
        while True:
            await self._posted.wait()
            self._posted = trio.Event()
            data, self._outbox = b"".join(self._outbox), []
            try:
                await self._stream.send_all(data)
            except trio.BrokenResourceError:
                # The reader meets the end of the stream and knows why.
                await trio.sleep_forever()

    async def read(self, on_frame: Callable[[frames.ChildFrame], None]) -> None:
        """Hand each frame to ``on_frame``, inline, for ever.

        Raises:
            CudaContextPoisoned: the process ended, or sent what is not a frame, or a fatal one.
            Unrecoverable: the process said that a restart cannot help.
        """
        decoder = frames.child_frame_decoder()
        while data := await self._receive():
            self._pulse.beat(trio.current_time())
            try:
                received = decoder.feed(data)
            except frames.ProtocolViolation as violation:
                raise CudaContextPoisoned("the device process sent garbage") from violation
            for frame in received:
                if isinstance(frame, frames.Fatal):
                    raise _fatal(frame)
                if isinstance(frame, frames.Heartbeat):
                    self._pulse.check_step(frame)
                on_frame(frame)
        status = await self.process.end()
        why = ", out of memory" if self.process.was_starved else ""
        raise CudaContextPoisoned(f"the device process {describe_exit(status)}{why}", self.process.was_killed)

    async def watch(self) -> None:
        """Fail when the process falls silent.

        Raises:
            CudaContextPoisoned: it did.
        """
        self._pulse.beat(trio.current_time())
        while True:
            self.process.lives_now()
            await trio.sleep(self._pulse.silence / 4)
            self._pulse.check(trio.current_time())

    async def close(self) -> None:
        """End the process and the connection; shielded, takes at most the grace of ``ChildProcess.end``."""
        with trio.CancelScope(shield=True):
            with trio.move_on_after(0.1):
                # A hint that this is on purpose; the end of the stream says the same.
                await self._say_goodbye()
            await self._stream.aclose()
            await self.process.end()

    async def _say_goodbye(self) -> None:
        try:
            await self._stream.send_all(frames.encode(frames.Shutdown()))
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            return

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(RECEIVE_BYTES))
        except trio.BrokenResourceError:
            return b""


def _fatal(frame: frames.Fatal) -> InferenceError:
    if frame.kind == "Unrecoverable":
        return ModelLoadError(frame.message)
    # Out of memory too: the engine survives that by itself, so this process ends and a new one is needed.
    return CudaContextPoisoned(frame.message)


def spawn_device(configure: frames.Configure, pulse: Pulse, pages_fd: int | None = None) -> DeviceLink:
    """Start a device process and connect to it; it is the caller's to close.

    Args:
        configure: what it is told first.
        pulse: judges whether it lives.
        pages_fd: a file for pages that outlive it.

    Raises:
        Unrecoverable: the process cannot be started at all.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            command = child_command(theirs.fileno(), os.getpid(), pages_fd)
            passed = [theirs.fileno(), *([] if pages_fd is None else [pages_fd])]
            process = ChildProcess.spawn(command, env=child_environment(os.environ), pass_fds=passed)
        except OSError as error:
            ours.close()
            raise Unrecoverable("the device process cannot be started") from error
    # Fits into the socket's empty buffer; so nobody has to write before somebody reads.
    with suppress(BrokenPipeError):
        ours.sendall(frames.encode(configure))
    return DeviceLink(process, trio.SocketStream(trio.socket.from_stdlib_socket(ours)), pulse)


@asynccontextmanager
async def open_device(link: DeviceLink) -> AsyncGenerator[DeviceLink]:
    """Leaving the block ends the process."""
    try:
        yield link
    finally:
        await link.close()
