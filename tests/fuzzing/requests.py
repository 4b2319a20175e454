"""Proper requests, which the fuzzer then spoils: HTTP/1.1 in bytes, HTTP/2 in frames."""

import json

import h2.config
import h2.connection
import h2.settings

MODEL = "echo"
PATHS = [
    "/livez", "/readyz", "/health", "/openapi.json", "/v1/models", f"/v1/models/{MODEL}", "/v1/models/a/b%20c",
    "/v1/streams/none", "/nothing", "/", "/v1//models", "/v1/models?x=%ff&y", "/%2e%2e/%00",
]  # fmt: skip
POSTS = ["/v1/chat/completions", "/v1/completions"]
METHODS = ["GET", "HEAD", "OPTIONS", "DELETE", "POST", "PUT", "TRACE", "CONNECT", "get", "X-" * 20]
UPGRADE = {
    "connection": "upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def request(method, path, headers=(), body=b"", version="1.1"):
    """The bytes of an HTTP/1 request; the body's length is told where there is one."""
    lines = [f"{method} {path} HTTP/{version}", "host: test", *(f"{name}: {value}" for name, value in headers)]
    if body:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(method, path, body, rng, headers=()):
    """The same with its body in chunks of random sizes."""
    head = request(method, path, [*headers, ("transfer-encoding", "chunked")])
    parts = []
    while body:
        size = rng.randint(1, len(body))
        parts.append(b"%x\r\n%b\r\n" % (size, body[:size]))
        body = body[size:]
    return head + b"".join(parts) + b"0\r\n\r\n"


def question(rng, words=None):
    """A path that generates, and a body that it takes."""
    path = rng.choice(POSTS)
    text = " ".join(["word"] * (rng.randint(1, 30) if words is None else words))
    asked = {"prompt": text} if "chat" not in path else {"messages": [{"role": "user", "content": text}]}
    body = {"model": MODEL, **asked, "max_tokens": 1000, "stream": rng.random() < 0.5, "n": rng.choice([1, 1, 3])}
    return path, json.dumps(body).encode()


def proper(rng, headers=()):
    """Any request that a client in its right mind could send."""
    kind = rng.random()
    if kind < 0.4:
        return request(rng.choice(["GET", "GET", "HEAD", "OPTIONS"]), rng.choice(PATHS), headers)
    path, body = question(rng)
    if kind < 0.8:
        return request("POST", path, headers, body)
    return chunked("POST", path, body, rng, headers)


def h2_client(rng):
    """A client's side of HTTP/2 that has said hello, and does not stop anybody from sending nonsense."""
    config = h2.config.H2Configuration(
        header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
    )
    client = h2.connection.H2Connection(config)
    if rng.random() < 0.2:
        window = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: rng.choice([0, 1, 2**31 - 1])}
        client.local_settings = h2.settings.Settings(client=True, initial_values=window)
    client.initiate_connection()
    return client


def h2_headers(method, path, extra=()):
    fields = [(b":method", method), (b":scheme", b"http"), (b":authority", b"test"), (b":path", path)]
    return fields + list(extra)


def h2_ask(client, stream, rng):
    """One proper request on a stream, in full, or without its end."""
    if rng.random() < 0.5:
        client.send_headers(stream, h2_headers(b"GET", rng.choice(PATHS).encode()), end_stream=True)
        return
    path, body = question(rng)
    client.send_headers(stream, h2_headers(b"POST", path.encode()))
    client.send_data(stream, body, end_stream=rng.random() < 0.9)


DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
NUMBERS = [0, 1, 7, 100, 2**31 - 1, 2**31, 2**32 - 1]


def frame(kind, flags, stream, payload):
    """An HTTP/2 frame, whether it makes sense or not."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def h2_oddity(stream, rng):
    """A frame that is wrong, unusual, or wrong at this moment."""
    number, blob = rng.choice(NUMBERS).to_bytes(4, "big"), rng.randbytes(rng.randint(0, 40))
    kind, payload = rng.choice([
        (PRIORITY, number + bytes([rng.randint(0, 255)])),
        (RST_STREAM, number),
        (WINDOW_UPDATE, number),
        (SETTINGS, rng.randint(0, 9).to_bytes(2, "big") + number),
        (PING, b"12345678"),
        (GOAWAY, number + bytes(4)),
        (PUSH_PROMISE, number + blob),
        *((kind, blob) for kind in (DATA, HEADERS, HEADERS, CONTINUATION, rng.randint(10, 255))),
    ])  # fmt: skip
    return frame(kind, rng.choice([0, 1, 4, 5, 0x2D]), rng.choice([stream, stream, 0]), payload)


ODD_FIELDS = [
    (b":path", b"/caf\xc3\xa9"), (b":path", b""), (b":path", b"*"), (b":method", b"CONNECT"), (b":status", b"200"),
    (b":protocol", b"websocket"), (b"Upper", b"x"), (b"connection", b"close"), (b"te", b"gzip"), (b"", b""),
    (b"x", b"\x00\xff"), (b"content-length", b"7"), (b"content-length", b"x"), (b"x" * 3000, b"y"),
    (b"cookie", b"z" * 20_000),
]  # fmt: skip
