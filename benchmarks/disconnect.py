"""What is generated for clients that have left: half of a crowd goes away at random moments.

Starts `atomr-trio serve` on a free port, once for a crowd that streams and once for one that does not. N clients ask
one after the other, each for an answer of the same length (end-of-sequence ignored); every second one closes its
connection at a random moment of the time that an answer takes, which was measured before. The table tells, in tokens:

* made: all that the device has drawn;
* delivered: what clients have read, those who left included;
* with them: answers that are not streamed, up to when the server saw that their client was gone: lost with it;
* late: what was drawn for a client after the server saw that it was gone: steps that were on the device by then;
* unread: what was streamed to clients that left, and not read by them: drawn before the server saw it.

Late and unread tokens count as made for clients that had left (an unread one may be older than that); their share of
all that was made is to be below 1 %. Each client that leaves costs a step or two, so the share depends on how long
answers are.

    python benchmarks/disconnect.py [--clients 16] [--requests 96] [--tokens 256] [--seed 0] [--json]
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx2
import trio
from _serving import NAME, Server, command_line, machine, print_json, start_ours
from attrs import asdict, define, field, frozen

MOST = 0.01
"""The share of tokens for clients that had left that is allowed."""

PROMPT = "Write about the number {} and everything that comes to mind when you think about it, in one long paragraph."


@define
class Crowd:
    """What the clients saw: who stayed and who left, the tokens that they read, and seconds of whole answers."""

    stayed: int = 0
    left: int = 0
    tokens_stayed: int = 0
    tokens_left: int = 0
    seconds: list[float] = field(factory=list)


@frozen
class Row:
    """What came of one crowd, in tokens, but for ``stayed`` and ``left``, which are requests."""

    kind: str
    stayed: int
    left: int
    made: int
    delivered: int
    with_them: int
    late: int
    unread: int

    @property
    def for_nobody(self) -> int:
        return self.late + self.unread

    @property
    def share(self) -> float:
        return self.for_nobody / self.made

    @property
    def each(self) -> float:
        """Of each client that left."""
        return self.for_nobody / max(1, self.left)


@define
class Reading:
    """One answer while it is read."""

    tokens: int = 0
    over: bool = False


Asking = Callable[[httpx2.AsyncClient, dict[str, Any], Reading], Any]


async def read_stream(client: httpx2.AsyncClient, body: dict[str, Any], reading: Reading) -> None:
    # The log probabilities are one for each token, however many tokens an event has.
    async with client.stream(
        "POST", "/v1/chat/completions", json={**body, "stream": True, "logprobs": True}
    ) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                for choice in json.loads(line.removeprefix("data: "))["choices"]:
                    reading.tokens += len((choice["logprobs"] or {}).get("content") or ())
            reading.over |= line == "data: [DONE]"


async def read_whole(client: httpx2.AsyncClient, body: dict[str, Any], reading: Reading) -> None:
    response = await client.post("/v1/chat/completions", json=body)
    response.raise_for_status()
    reading.tokens, reading.over = response.json()["usage"]["completion_tokens"], True


KINDS: dict[str, Asking] = {"streams": read_stream, "whole": read_whole}


async def one_client(
    client: httpx2.AsyncClient, ask: Asking, number: int, tokens: int, leave_after: float, crowd: Crowd
) -> None:
    messages = [{"role": "user", "content": PROMPT.format(number)}]
    body = {"model": NAME, "messages": messages, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    reading, began = Reading(), trio.current_time()
    with trio.move_on_after(leave_after):
        await ask(client, body, reading)
    if reading.over:
        crowd.stayed += 1
        crowd.tokens_stayed += reading.tokens
        crowd.seconds.append(trio.current_time() - began)
    else:
        crowd.left += 1
        crowd.tokens_left += reading.tokens


async def go(url: str, ask: Asking, leaves: list[float], salt: int, options: argparse.Namespace) -> Crowd:
    """Have as many requests as there are moments to leave, so many clients at a time."""
    crowd, waiting = Crowd(), list(enumerate(leaves))
    # No connection is used twice: one that is closed belongs to the client that left.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)

    async def clients() -> None:
        while waiting:
            number, leave_after = waiting.pop()
            await one_client(client, ask, salt + number, options.tokens, leave_after, crowd)

    async with httpx2.AsyncClient(base_url=url, timeout=None, limits=limits) as client, trio.open_nursery() as nursery:
        for _ in range(options.clients):
            nursery.start_soon(clients)
    return crowd


async def measure(server: Server, kind: str, options: argparse.Namespace) -> tuple[int, Crowd]:
    """Return how many tokens went to clients that were to stay, and the crowd of which half was to leave."""
    ask, drawn = KINDS[kind], random.Random(f"{options.seed} {kind}")
    stay, forever = options.clients, [float("inf")]
    # The first time for the programs, the second one to know how long an answer takes.
    first = await go(server.url, ask, forever * stay, 0, options)
    await trio.to_thread.run_sync(server.wait_idle)
    calm = await go(server.url, ask, forever * stay, stay, options)
    typical = statistics.median(calm.seconds)
    leaves = [drawn.uniform(0, typical) if number % 2 else float("inf") for number in range(options.requests)]
    crowd = await go(server.url, ask, leaves, 2 * stay, options)
    # What is made of those who left last is known when somebody after them is answered.
    last = await go(server.url, read_whole, forever, 2 * stay + options.requests, options)
    return first.tokens_stayed + calm.tokens_stayed + last.tokens_stayed, crowd


def counted(lines: list[str]) -> dict[str, int]:
    """What the server says when it ends."""
    return next(found for line in lines if line.startswith("{") and (found := json.loads(line))["event"] == "served")


def one_kind(kind: str, options: argparse.Namespace) -> Row:
    arguments = ["--dtype", options.dtype, "--spare", "none", *([options.model] if options.model else [])]
    with tempfile.TemporaryFile("w+") as stderr:
        server = start_ours(*arguments, stderr=stderr)
        try:
            besides, crowd = trio.run(partial(measure, server, kind, options))
        finally:
            server.stop()
        stderr.seek(0)
        said = counted(stderr.readlines())
    return row_of(kind, besides, crowd, said)


def row_of(kind: str, besides: int, crowd: Crowd, said: dict[str, int]) -> Row:
    """Make a row of what the clients saw and what the server said; ``besides`` are tokens for others."""
    told = said["tokens_out"] - besides
    delivered = crowd.tokens_stayed + crowd.tokens_left
    # Of what is not streamed nobody can read a part.
    lost, unread = (0, told - delivered) if kind == "streams" else (told - delivered, 0)
    return Row(
        kind=kind,
        stayed=crowd.stayed,
        left=crowd.left,
        made=told + said["tokens_late"],
        delivered=delivered,
        with_them=lost,
        late=said["tokens_late"],
        unread=unread,
    )


def together(rows: list[Row]) -> Row:
    sums = {name: sum(getattr(row, name) for row in rows) for name in asdict(rows[0]) if name != "kind"}
    return Row(kind="both", **sums)


HEADING = f"{'':>8} {'stayed':>7} {'left':>5} {'made':>8} {'delivered':>10} {'with them':>10} {'late':>6} {'unread':>7}"
HEADING += f" {'for nobody':>11} {'of each':>8} {'share':>7}"


def line(row: Row) -> str:
    return (
        f"{row.kind:>8} {row.stayed:>7} {row.left:>5} {row.made:>8} {row.delivered:>10} {row.with_them:>10} "
        f"{row.late:>6} {row.unread:>7} {row.for_nobody:>11} {row.each:>8.2f} {row.share:>7.2%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--kind", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--clients", type=int, default=16, help="at once")
    parser.add_argument("--requests", type=int, default=96, help="of each kind")
    parser.add_argument("--tokens", type=int, default=256, help="of each answer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    about = machine()
    rows = [one_kind(kind, options) for kind in options.kind]
    rows.append(together(rows))
    if options.json:
        print_json(about, rows=[{**asdict(row), "for_nobody": row.for_nobody, "share": row.share} for row in rows])
    else:
        print("\n".join([about, command_line(), "", HEADING, *map(line, rows)]))
    if any(row.share >= MOST for row in rows):
        sys.exit(f"more than {MOST:.0%} of the tokens were made for clients that had left")


if __name__ == "__main__":
    main()
