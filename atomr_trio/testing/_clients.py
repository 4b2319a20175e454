"""HTTP clients that misbehave to order: what a gateway has to live through, for tests of your own deployments."""

import random
import socket
import struct
from collections.abc import Mapping
from typing import Literal, get_args
from urllib.parse import urlsplit

import trio
from attrs import field, frozen, validators

__all__ = ["ClientFault", "ClientFaultKind", "ClientFaultPlan", "ask_badly"]

ClientFaultKind = Literal["stall", "reset", "leave", "half_close", "torn"]
"""What a client does.

``stall``: reads nothing for a while, in the middle of the answer. ``reset``: ends the connection with a TCP reset.
``leave``: closes it. ``half_close``: says that it will send nothing more, and reads on. ``torn``: leaves in the middle
of its own request.
"""

_AT_ONCE = struct.pack("ii", 1, 0)
_CHUNK = 4096


@frozen
class ClientFault:
    """One client: what it does, after how many bytes of the answer, and how long a ``stall`` is in seconds."""

    kind: ClientFaultKind
    after: int = field(default=0, validator=validators.ge(0))
    seconds: float = field(default=0.0, validator=validators.ge(0.0))


@frozen
class ClientFaultPlan:
    """What each of many clients does, as a function of a seed.

    Args:
        seed: of everything.
        kinds: each client does one of these.
        after: most bytes of the answer that a client reads before.
        seconds: longest stall.
    """

    seed: int
    kinds: tuple[ClientFaultKind, ...] = field(default=get_args(ClientFaultKind), validator=validators.min_len(1))
    after: int = field(default=2000, validator=validators.ge(0))
    seconds: float = field(default=5.0, validator=validators.ge(0.0))

    def client(self, number: int) -> ClientFault:
        """Say what the ``number``-th client does."""
        # Seeded by a string: that is the same in every process, where a hash is not.
        drawn = random.Random(f"client faults {self.seed} {number}")
        return ClientFault(drawn.choice(self.kinds), drawn.randint(0, self.after), drawn.uniform(0, self.seconds))


async def ask_badly(
    url: str, body: bytes, fault: ClientFault, *, headers: Mapping[str, str] | None = None, buffer: int | None = None
) -> bytes:
    """POST over a connection of its own, and misbehave.

    Args:
        url: such as ``http://127.0.0.1:8080/v1/chat/completions``.
        body: of the request.
        fault: what to do.
        headers: further ones.
        buffer: bytes of the socket's receive buffer; a small one makes a ``stall`` felt sooner.

    Returns:
        What came back of the answer: its raw bytes, headers included.

    Raises:
        OSError: the server cannot be reached.
    """
    target = urlsplit(url)
    sock = trio.socket.socket()
    try:
        if buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        await sock.connect((target.hostname or "127.0.0.1", target.port or 80))
        return await _misbehave(trio.SocketStream(sock), _request(target.netloc, target.path, body, headers), fault)
    finally:
        sock.close()


def _request(host: str, path: str, body: bytes, headers: Mapping[str, str] | None) -> bytes:
    given = {"host": host, "content-length": str(len(body)), "connection": "close", **(headers or {})}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
    return "\r\n".join(lines).encode() + body


async def _misbehave(stream: trio.SocketStream, request: bytes, fault: ClientFault) -> bytes:
    if fault.kind == "torn":
        await stream.send_all(request[: fault.after % len(request)])
        return b""
    await stream.send_all(request)
    if fault.kind == "half_close":
        await stream.send_eof()
    answer = await _read(stream, fault.after)
    match fault.kind:
        case "leave":
            return answer
        case "reset":
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            return answer
        case "stall":
            await trio.sleep(fault.seconds)
        case _:
            pass
    return answer + await _read(stream, None)


async def _read(stream: trio.SocketStream, count: int | None) -> bytes:
    """Read so many bytes, or all; less if the server ends the connection."""
    found = bytearray()
    while count is None or len(found) < count:
        try:
            some = await stream.receive_some(_CHUNK if count is None else min(_CHUNK, count - len(found)))
        except trio.BrokenResourceError:
            break
        if not some:
            break
        found += some
    return bytes(found)
