"""What can be done to bytes."""

import re

HEADERS = [
    "Content-Length: 5", "Content-Length: 0", "Content-Length: -1", "Content-Length: 99999999999999999999",
    "Content-Length: 5, 6", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip", "Transfer-Encoding: chunked, x",
    "Expect: 100-continue", "Connection: close", "Connection: upgrade", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk",
    "HTTP2-Settings: ?", "Upgrade: websocket", "Content-Encoding: gzip", "Host: ", "Host: [", "Host: a@b:99999",
    f"X-Request-Id: {'x' * 200}", "X-Forwarded-For: \xff", "Last-Event-ID: -1", "Cookie: a=b; =;", "Range: bytes=0-",
    "Content-Type: multipart/form-data; boundary=", "Authorization: Bearer \xff", "Traceparent: 00-0-0-00",
]  # fmt: skip
TOKENS = [
    *(f"{header}\r\n".encode("latin-1") for header in HEADERS),
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\x00", b"\xff\xfe", b"\xc3\x28", b"\xed\xa0\x80", b" ", b"\t", b":", b"%00",
    b"%", b"?", b"//", b"http://[::1", b"http://test/livez", b"*", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.1",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"ffffffffffffffff\r\n", b"-1\r\n", b"0\r\n\r\n", b'5;ext="\r\n', b"null",
    b"1e999", b'"\\ud800"', b"[" * 2000, b'{"a":' * 500,
]  # fmt: skip


def spoil(data, rng, times=None):
    """Change some bytes."""
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8]) if times is None else times):
        data = rng.choice(WAYS)(data, rng)
    return data


def _flip(data, rng):
    if not data:
        return data
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def _insert(data, rng):
    at = rng.randint(0, len(data))
    return data[:at] + rng.choice(TOKENS) + data[at:]


def _insert_line(data, rng):
    # Where a header would be: most of the words mean something there.
    ends = [match.end() for match in re.finditer(rb"\r\n", data)] or [0]
    at = rng.choice(ends)
    return data[:at] + rng.choice(TOKENS) + data[at:]


def _replace(data, rng):
    at = rng.randint(0, len(data))
    return data[:at] + rng.choice(TOKENS) + data[at + rng.randint(0, 20) :]


def _delete(data, rng):
    at = rng.randint(0, len(data))
    return data[:at] + data[at + rng.randint(1, 30) :]


def _repeat(data, rng):
    at = rng.randint(0, len(data))
    piece = data[at : at + rng.randint(1, 60)]
    return data[:at] + piece * rng.randint(2, 5) + data[at:]


def _noise(data, rng):
    at = rng.randint(0, len(data))
    return data[:at] + rng.randbytes(rng.randint(1, 50)) + data[at:]


def _truncate(data, rng):
    return data[: rng.randint(0, len(data))]


WAYS = [_flip, _insert, _insert_line, _insert_line, _replace, _delete, _repeat, _noise, _truncate]
