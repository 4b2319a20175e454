"""Listening sockets, prepared before the server starts, so that a port in use is found out early and said clearly."""

import errno
import ipaddress
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any, ClassVar

from attrs import define

from atomr_trio.core import InferenceError

__all__ = ["BindError", "is_exposed", "open_sockets", "urls"]

BACKLOG = 2048

_ADVICE = {
    errno.EADDRINUSE: "the port is in use; stop the program that has it, or choose another port (0 picks a free one)",
    errno.EACCES: "this port needs more rights than this user has; choose a port above 1023",
    errno.EADDRNOTAVAIL: "this machine has no such address; use 127.0.0.1, or 0.0.0.0 for all of its addresses",
}
# A name such as `localhost` resolves to families that the machine may have switched off.
_NO_SUCH_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})


@define
class BindError(InferenceError):
    """The server cannot listen where it was told to."""

    kind: ClassVar[str] = "bind_error"
    host: str
    port: int
    reason: str

    def __str__(self) -> str:
        return f"cannot listen on {self.host}:{self.port}: {self.reason}"


def open_sockets(host: str, port: int, *, user_timeout: float = 30.0) -> list[socket.socket]:
    """Open listening TCP sockets on every address that ``host`` stands for.

    Accepted connections inherit two options from them: TCP_NODELAY (a token leaves at once) and, on Linux,
    TCP_USER_TIMEOUT (a peer that vanished without a word is noticed).

    Args:
        host: an address or a name. Names are resolved here, which may block.
        port: 0 picks a free one, the same for every address.
        user_timeout: seconds that sent data may stay unacknowledged.

    Raises:
        BindError: nothing could be opened; the message says what to do.
    """
    addresses = _resolve(host, port)
    opened: list[socket.socket] = []
    try:
        for family, (at, _, *rest) in addresses:
            sock = _listen(family, (at, port, *rest), user_timeout, optional=len(addresses) > 1)
            if sock is not None:
                opened.append(sock)
                port = sock.getsockname()[1]
    except OSError as error:
        _close(opened)
        reason = _ADVICE.get(error.errno or 0) or (error.strerror or "unknown reason").lower()
        raise BindError(host, port, reason) from error
    if not opened:
        raise BindError(host, port, _ADVICE[errno.EADDRNOTAVAIL])
    return opened


def urls(sockets: Sequence[socket.socket]) -> list[str]:
    """Where a client on this machine reaches the sockets, as ``http://host:port``."""
    found: list[str] = []
    for sock in sockets:
        host, port = sock.getsockname()[:2]
        found.append(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    return found


def is_exposed(sockets: Sequence[socket.socket]) -> bool:
    """Whether other machines can reach one of the sockets."""
    addresses = (ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]) for sock in sockets)
    return not all(address.is_loopback for address in addresses)


def _resolve(host: str, port: int) -> list[tuple[int, tuple[Any, ...]]]:
    if not 0 <= port <= 65535:
        raise BindError(host, port, "a port is a number from 0 to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError) as error:
        raise BindError(host, port, "no address is known for this host name") from error
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))


def _listen(family: int, address: tuple[Any, ...], user_timeout: float, *, optional: bool) -> socket.socket | None:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        if optional and error.errno in _NO_SUCH_FAMILY:
            return None
        raise
    try:
        _set_options(sock, user_timeout)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if optional and error.errno in _NO_SUCH_FAMILY:
            return None
        raise
    return sock


def _set_options(sock: socket.socket, user_timeout: float) -> None:
    if os.name == "posix":
        # Elsewhere this option lets two servers share a port by accident.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if sys.platform == "linux":
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(user_timeout * 1000))


def _close(sockets: Sequence[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
