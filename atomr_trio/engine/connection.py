"""The device process's end of the socket: frames in through a thread, frames out from any thread."""

import os
import queue
import socket
import sys
import threading
from contextlib import suppress

from attrs import define, field

from .frames import Frame, ParentFrame, Ping, Pong, ProtocolViolation, Shutdown, encode, parent_frame_decoder

__all__ = ["EXIT_EOF", "EXIT_VIOLATION", "Connection"]

EXIT_EOF = 0
EXIT_VIOLATION = 4
_READ_BYTES = 64 * 1024
# A full inbox stops the reading, and the server feels it on its socket.
_INBOX_FRAMES = 4096


@define
class Connection:
    """Frames over a socket.

    The reader ends the whole process when the server hangs up or sends garbage, whatever the other threads are doing:
    loading and compiling take many seconds and cannot be interrupted in any other way.
    """

    _socket: socket.socket
    _inbox: "queue.Queue[ParentFrame | None]" = field(init=False, factory=lambda: queue.Queue(_INBOX_FRAMES))
    _sending: threading.Lock = field(init=False, factory=threading.Lock)

    def start(self) -> None:
        """Start to read."""
        threading.Thread(target=self._read, name="frames-in", daemon=True).start()

    def wake(self) -> None:
        """Let whoever waits in `receive_within` look around; it gets no frame. From any thread."""
        with suppress(queue.Full):
            self._inbox.put_nowait(None)

    def receive(self) -> ParentFrame:
        """Wait for the next frame."""
        while (frame := self._inbox.get()) is None:
            pass
        return frame

    def receive_within(self, seconds: float | None) -> list[ParentFrame]:
        """Wait for the next frame, but not for ever: none or one. ``None``: until there is one, or `wake` is called."""
        try:
            frame = self._inbox.get(timeout=seconds)
        except queue.Empty:
            return []
        return [] if frame is None else [frame]

    def received(self) -> list[ParentFrame]:
        """Return the frames that are here, without waiting."""
        frames: list[ParentFrame] = []
        while True:
            try:
                frame = self._inbox.get_nowait()
            except queue.Empty:
                return frames
            if frame is not None:
                frames.append(frame)

    def send(self, frame: Frame) -> None:
        """Send a frame; waits while the server does not read."""
        self.send_bytes(encode(frame))

    def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are."""
        try:
            with self._sending:
                self._socket.sendall(data)
        except OSError:
            os._exit(EXIT_EOF)

    def _read(self) -> None:
        decoder = parent_frame_decoder()
        try:
            while data := self._receive_bytes():
                for frame in decoder.feed(data):
                    self._dispatch(frame)
            if decoder.buffered:
                raise ProtocolViolation("the stream ends inside a frame")
        except ProtocolViolation as violation:
            sys.stderr.write(f"atomr-trio device process: {violation}\n")
            sys.stderr.flush()
            os._exit(EXIT_VIOLATION)
        os._exit(EXIT_EOF)

    def _receive_bytes(self) -> bytes:
        try:
            return self._socket.recv(_READ_BYTES)
        except ConnectionError:
            return b""

    def _dispatch(self, frame: ParentFrame) -> None:
        if isinstance(frame, Shutdown):
            os._exit(EXIT_EOF)
        if isinstance(frame, Ping):
            self.send(Pong(frame.number))
        else:
            self._inbox.put(frame)
