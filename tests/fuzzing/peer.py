"""Plays a scenario against a server, and tells what came back."""

import re
import socket
import struct

import trio

MOST_KEPT = 1_000_000
GIVE_UP = 5.0
# 501 is the right answer to a transfer encoding that nobody knows.
FAILED = re.compile(rb"HTTP/1\.1 5(?!01)\d\d ")


async def play(port, scenario):
    """Be this peer. Returns what the server said, as far as the peer listened.

    Raises:
        OSError: the server does not take connections.
    """
    sock = trio.socket.socket()
    if not scenario.reads:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with sock:
        await sock.connect(("127.0.0.1", port))
        stream = trio.SocketStream(sock)
        said = bytearray()
        async with trio.open_nursery() as nursery:
            answered = trio.Event()
            if scenario.reads:
                nursery.start_soon(_listen, stream, said, answered)
            with trio.move_on_after(GIVE_UP):
                await _speak(stream, scenario)
            with trio.move_on_after(scenario.patience):
                await answered.wait()
            await _leave(stream, scenario)
            nursery.cancel_scope.cancel()
        return bytes(said)


async def _speak(stream, scenario):
    try:
        for number, piece in enumerate(scenario.pieces):
            if number and scenario.pause:
                await trio.sleep(scenario.pause)
            await stream.send_all(piece)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass


async def _listen(stream, said, answered):
    try:
        while data := await stream.receive_some(65536):
            if len(said) < MOST_KEPT:
                said += data
            answered.set()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    answered.set()


async def _leave(stream, scenario):
    if scenario.leave == "half-close":
        try:
            await stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return
        await trio.sleep(0.01)
    elif scenario.leave == "reset":
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def complaint(said):
    """What is wrong with what a server said; empty if nothing is."""
    found = FAILED.search(said)
    return f"the server answered {found[0].decode()}" if found else ""
