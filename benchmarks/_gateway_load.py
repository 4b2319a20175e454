"""Many HTTP clients in one thread that do next to nothing: what is measured is the server."""

import json
import selectors
import socket
import time
from collections import deque
from urllib.parse import urlsplit

from attrs import define, field, frozen

WORD = b"token "
END = b"\r\n0\r\n\r\n"
SETTLE_S = 0.5
"""Seconds after the last client came in which nobody is called late."""

_CHUNK = 1 << 18


@define(eq=False)
class Client:
    """One connection, and what came on it."""

    sock: socket.socket
    number: int
    asked: float = 0.0
    first: float | None = None
    last: float = 0.0
    tokens: int = 0
    events: int = 0
    late_s: float = 0.0
    left: int = 0
    tail: bytes = b""
    end: bytes = b""


@frozen
class Load:
    """What came of all clients together; times in seconds."""

    seconds: float
    tokens: int
    events: int
    requests: int
    first_s: list[float] = field(repr=False)
    late_s: list[float] = field(repr=False)


@frozen
class Pace:
    """How fast a source speaks, and from when on it is held to it.

    Args:
        token_s: seconds between two tokens.
        ahead: tokens that it makes at a time.
        ramp_s: the clients come one after the other, within so many seconds; lateness counts afterwards.
    """

    token_s: float
    ahead: int = 1
    ramp_s: float = 0.0


def request_of(url: str, tokens: int, *, stream: bool) -> bytes:
    messages = [{"role": "user", "content": "go"}]
    body = json.dumps({"model": "bench", "messages": messages, "stream": stream, "max_tokens": tokens}).encode()
    host = urlsplit(url).netloc
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def apply(
    url: str,
    clients: int,
    tokens: int,
    *,
    stream: bool,
    requests: int = 1,
    pause_s: float = 0.0,
    pace: Pace | None = None,
) -> Load:
    """Have so many clients ask so often, each for so many tokens, one request after the other.

    Args:
        url: of the server.
        clients: connections at once.
        tokens: of each answer.
        stream: ask for events.
        requests: of each client.
        pause_s: seconds from the end of an answer to the client's next request.
        pace: of the source, by which lateness is told.
    """
    request = request_of(url, tokens, stream=stream)
    watched = selectors.DefaultSelector()
    first_s: list[float] = []
    open_ones = [Client(_connect(url), number, left=requests) for number in range(clients)]
    for client in open_ones:
        watched.register(client.sock, selectors.EVENT_READ, client)
    start = time.perf_counter()
    ramp = pace.ramp_s if pace else 0.0
    due = deque((start + ramp * client.number / clients, client) for client in open_ones)
    running = clients
    while running:
        while due and due[0][0] <= time.perf_counter():
            _ask(due.popleft()[1], request)
        wait = max(0.0, due[0][0] - time.perf_counter()) if due else 30
        for key, _ in watched.select(wait):
            client = key.data
            ended = _take(client, first_s, stream=stream)
            if pace and client.last > start + ramp + SETTLE_S:
                _note_lateness(client, pace)
            if not ended:
                continue
            if client.left:
                due.append((time.perf_counter() + pause_s, client))
            else:
                watched.unregister(client.sock)
                client.sock.close()
                running -= 1
    seconds = time.perf_counter() - start
    return Load(
        seconds,
        sum(client.tokens for client in open_ones),
        sum(client.events for client in open_ones),
        clients * requests,
        first_s,
        [client.late_s for client in open_ones],
    )


def _connect(url: str) -> socket.socket:
    target = urlsplit(url)
    sock = socket.create_connection((target.hostname or "", target.port or 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    return sock


def _note_lateness(client: Client, pace: Pace) -> None:
    # Token n of a stream is made with the others of its group.
    if client.first is not None and client.tokens:
        made = (client.tokens - 1) // pace.ahead * pace.ahead * pace.token_s
        client.late_s = max(client.late_s, client.last - client.first - made)


def _ask(client: Client, request: bytes) -> None:
    client.left -= 1
    client.asked, client.first, client.tail, client.end = time.perf_counter(), None, b"", b""
    client.sock.send(request)


def _take(client: Client, first_s: list[float], *, stream: bool) -> bool:
    """Read what is there; true if the answer is whole."""
    data = client.sock.recv(_CHUNK)
    now = client.last = time.perf_counter()
    if not data:
        raise ConnectionError("the server ended the connection")
    seen = client.tail + data
    # A word may lie across two reads; what is kept of the first is too short to be counted twice.
    words = seen.count(WORD)
    client.tail = seen[-(len(WORD) - 1) :]
    if words and client.first is None:
        client.first = now
        first_s.append(now - client.asked)
    client.tokens += words
    client.events += seen.count(b'"content":"token')
    client.end = (client.end + data)[-len(END) :]
    return client.end == END if stream else client.end.endswith(b"}")
