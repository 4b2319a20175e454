"""From a seed to a peer: what it sends, in which pieces, when it stops, and how it leaves."""

import random
from itertools import pairwise

from attrs import field, frozen

from .requests import (
    METHODS,
    ODD_FIELDS,
    PATHS,
    UPGRADE,
    chunked,
    frame,
    h2_ask,
    h2_client,
    h2_headers,
    h2_oddity,
    proper,
    question,
    request,
)
from .spoil import spoil

LEAVE = ("close", "half-close", "reset")


@frozen(kw_only=True)
class Scenario:
    """One connection.

    Args:
        seed: makes this scenario again.
        kind: what is done.
        pieces: what is sent, in as many writes.
        pause: seconds between two writes.
        leave: how it ends.
        patience: seconds to wait for the first bytes of an answer before leaving.
        reads: it takes what comes; otherwise it lets it pile up.
    """

    seed: str
    kind: str
    pieces: tuple[bytes, ...] = field(repr=False)
    pause: float = 0.0
    leave: str = "close"
    patience: float = 0.5
    reads: bool = True


def scenario(seed):
    """The peer of a seed. The same seed gives the same peer."""
    rng = random.Random(seed)
    kind, make = rng.choices(list(KINDS.items()), WEIGHTS)[0]
    given = {"leave": rng.choices(LEAVE, [6, 2, 2])[0], "patience": rng.choice([0, 0.05, 0.5, 0.5]), **make(rng)}
    pieces = given.pop("pieces")
    return Scenario(seed=seed, kind=kind, pieces=tuple(piece for piece in pieces if piece), **given)


def _spoilt(rng):
    return {"pieces": [spoil(proper(rng), rng)]}


def _odd_method(rng):
    path = rng.choice([*PATHS, "*", "test:443", "http://test/livez", "http://[", "?", "http:", "//", "///", "/" * 3000])
    return {"pieces": [request(rng.choice(METHODS), path, version=rng.choice(["1.1", "1.1", "1.0", "2.0", "9"]))]}


def _split(rng):
    data = proper(rng)
    cuts = sorted(rng.randint(0, len(data)) for _ in range(rng.randint(1, 6)))
    if rng.random() < 0.1:
        cuts = list(range(1, min(len(data), 400)))
    ends = [0, *cuts, len(data)]
    return {"pieces": [data[a:b] for a, b in pairwise(ends)]}


def _pipelined(rng):
    parts = [proper(rng) for _ in range(rng.randint(2, 8))]
    if rng.random() < 0.5:
        parts.insert(rng.randrange(len(parts)), spoil(proper(rng), rng))
    return {"pieces": [b"".join(parts)]}


def _truncated(rng):
    data = proper(rng)
    return {"pieces": [data[: rng.randint(0, len(data))]], "patience": 0}


def _large_headers(rng):
    fields = [("x-" + "a" * rng.randint(1, 200), "b" * rng.randint(0, 2000)) for _ in range(rng.randint(1, 60))]
    if rng.random() < 0.3:
        fields = [("x", "y" * rng.choice([16_000, 16_500, 70_000]))]
    return {"pieces": [request("GET", rng.choice(PATHS), fields)]}


def _large_body(rng):
    body = b"x" * rng.choice([65_535, 65_536, 65_537, 300_000])
    path = rng.choice(PATHS + ["/v1/chat/completions"] * 5)
    data = request("POST", path, (), body) if rng.random() < 0.5 else chunked("POST", path, body, rng)
    return {"pieces": [data[at : at + 30_000] for at in range(0, len(data), 30_000)]}


def _bad_text(rng):
    path, body = question(rng)
    at = rng.randrange(len(body))
    body = (
        body[:at]
        + rng.choice([b"\xff", b"\xc3", b"\xed\xa0\x80", b"\\ud800", b"\x00", b"\xf4\x90\x80\x80"])
        + body[at:]
    )
    return {"pieces": [request("POST", path, (), body)]}


def _bad_chunks(rng):
    path, body = question(rng)
    head, _, rest = chunked("POST", path, body, rng).partition(b"\r\n\r\n")
    return {"pieces": [head + b"\r\n\r\n" + spoil(rest, rng)]}


def _two_lengths(rng):
    path, body = question(rng)
    said = rng.choice([len(body) - 1, len(body) + 1, 0, 2**70, -1, "", "0x5", "+5", f"{len(body)}, {len(body)}"])
    extra = [("content-length", said)]
    if rng.random() < 0.5:
        extra.append(("transfer-encoding", rng.choice(["chunked", "identity", "chunked, chunked", "\tchunked"])))
    return {"pieces": [request("POST", path, extra, body)]}


def _h2(rng):
    client = h2_client(rng)
    pieces = [client.data_to_send()]
    for stream in range(1, 2 * rng.randint(1, 6), 2):
        h2_ask(client, stream, rng)
        pieces.append(client.data_to_send())
        if rng.random() < 0.5:
            pieces.append(h2_oddity(stream, rng))
    if rng.random() < 0.4:
        at = rng.randrange(len(pieces))
        pieces[at] = spoil(pieces[at], rng)
    return {"pieces": [b"".join(pieces)] if rng.random() < 0.5 else pieces}


def _h2_fields(rng):
    client = h2_client(rng)
    fields = h2_headers(b"GET", b"/livez", rng.sample(ODD_FIELDS, rng.randint(1, 3)))
    rng.shuffle(fields)
    client.send_headers(1, fields[: rng.randint(1, len(fields))], end_stream=rng.random() < 0.7)
    return {"pieces": [client.data_to_send()]}


def _h2_flood(rng):
    client = h2_client(rng)
    pieces, often = [client.data_to_send()], rng.sample(range(10), 2)
    for number in range(rng.choice([150, 1200])):
        stream = 2 * number + 1
        pieces.append(frame(rng.choice(often), 5, stream, number.to_bytes(4, "big") + b"\x01"))
    return {"pieces": [b"".join(pieces)]}


def _h2_hello(rng):
    return {"pieces": [h2_client(rng).data_to_send()], "patience": 0}


def _h2_upgrade(rng):
    settings = rng.choice(["AAMAAABkAARAAAAAAAIAAAAA", "", "?", "AAM", "\xff"])
    fields = [("connection", "upgrade, http2-settings"), ("upgrade", "h2c"), ("http2-settings", settings)]
    data = request(rng.choice(["GET", "OPTIONS"]), rng.choice(PATHS), fields)
    after = h2_client(rng).data_to_send() if rng.random() < 0.7 else rng.randbytes(30)
    return {"pieces": [data + after] if rng.random() < 0.5 else [data, after]}


def _websocket(rng):
    fields = {**UPGRADE}
    if rng.random() < 0.4:
        fields[rng.choice(list(fields))] = rng.choice(["", "x", "13", "\xff", "websocket, x"])
    if rng.random() < 0.2:
        fields.pop(rng.choice(list(fields)))
    data = request("GET", rng.choice(PATHS), list(fields.items()))
    after = rng.choice([b"", b"\x00", b"\x81\x85\x00\x00\x00\x00hello", rng.randbytes(20), proper(rng)])
    return {"pieces": [data + after] if rng.random() < 0.5 else [data, after]}


def _slow(rng):
    data = proper(rng)
    cut = rng.randint(0, min(60, len(data)))
    return {
        "pieces": [data[at : at + 1] for at in range(cut)],
        "pause": rng.choice([0.002, 0.02]),
        "patience": rng.choice([0, 0, 3]),
    }


def _stalled(rng):
    asks = request("GET", "/openapi.json") * rng.randint(100, 400)
    return {"pieces": [asks], "reads": False, "patience": rng.choice([0.1, 2]), "leave": rng.choice(["close", "reset"])}


def _early(rng):
    path = rng.choice(PATHS)
    body = b"y" * rng.randint(1, 2000)
    data = request("POST", path, (), body) + proper(rng)
    cut = data.index(b"\r\n\r\n") + rng.randint(0, 4)
    return {"pieces": [data[:cut], data[cut:]], "pause": rng.choice([0, 0.01])}


# How often each is drawn: those that make somebody wait are rare, or a campaign would take hours.
KINDS = {
    "spoilt": _spoilt, "odd method": _odd_method, "split": _split, "pipelined": _pipelined, "truncated": _truncated,
    "large headers": _large_headers, "large body": _large_body, "bad text": _bad_text, "bad chunks": _bad_chunks,
    "two lengths": _two_lengths, "h2": _h2, "h2 fields": _h2_fields, "h2 flood": _h2_flood, "h2 hello": _h2_hello,
    "h2 upgrade": _h2_upgrade, "websocket": _websocket, "slow": _slow, "stalled": _stalled, "early": _early,
}  # fmt: skip
WEIGHTS = [30, 8, 8, 6, 6, 4, 2, 6, 6, 5, 8, 5, 0.5, 1, 3, 6, 1.5, 0.2, 4]
