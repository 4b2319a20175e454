"""Many peers against one server, in batches; after each the server must be as it was."""

import json
import math
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from functools import partial

import trio
from attrs import define, field, frozen

from .peer import complaint, play
from .requests import MODEL, request
from .scenarios import scenario

PEERS = 32
SETTLE = 20.0
SPARE_FDS = 3
"""Descriptors that a server may have more than at first: threads of the runtime open some when they are needed."""


@define
class Target:
    """The server's process."""

    process: trio.Process
    port: int
    _lines: "trio.MemoryReceiveChannel[bytes]"
    at_rest: dict = field(factory=dict)

    async def vitals(self):
        """What the server says about itself.

        Raises:
            Dead: it says nothing any more.
        """
        try:
            with trio.fail_after(SETTLE):
                await self.process.stdin.send_all(b"\n")
                return json.loads(await self._lines.receive())
        except (trio.BrokenResourceError, trio.EndOfChannel, trio.TooSlowError) as error:
            raise Dead(f"the server is gone (status {self.process.poll()})") from error

    async def settled(self):
        """Its vitals once all connections are gone; as they are if that does not happen. With all errors it logged."""
        errors, give_up = {}, trio.current_time() + SETTLE
        while True:
            now = await self.vitals()
            for text, count in now["errors"].items():
                errors[text] = errors.get(text, 0) + count
            if not self.leaks(now) or trio.current_time() > give_up:
                return {**now, "errors": errors}
            await trio.sleep(0.1)

    def leaks(self, vitals):
        """What there is more of than at first; empty if nothing is."""
        return [
            f"{vitals[what] - self.at_rest[what]} {what} more than at rest"
            for what, spare in (("tasks", 0), ("fds", SPARE_FDS))
            if vitals[what] > self.at_rest[what] + spare
        ]

    async def greet(self, word):
        """Ask a proper question; return what is wrong with the answer, or nothing."""
        body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": word}]}).encode()
        asked = request("POST", "/v1/chat/completions", [("connection", "close")], body)
        try:
            with trio.fail_after(SETTLE):
                async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                    await stream.send_all(asked)
                    said = b"".join([piece async for piece in stream])
        except (OSError, trio.BrokenResourceError, trio.TooSlowError) as error:
            return f"a proper request got no answer: {error!r}"
        head, _, answer = said.partition(b"\r\n\r\n")
        right = head.startswith(b"HTTP/1.1 200") and json.loads(answer)["choices"][0]["message"]["content"] == word
        return "" if right else f"a proper request was answered wrong: {said[:200]!r}"


class Dead(Exception):
    """The server's process has ended, or does nothing any more."""


@asynccontextmanager
async def target(**limits):
    """Start a server with these limits in place of its own, and end it."""
    command = [sys.executable, "-m", "tests.fuzzing.server", json.dumps(limits)]
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, check=False)
        process = await nursery.start(run)
        send, lines = trio.open_memory_channel[bytes](math.inf)
        nursery.start_soon(_read_lines, process.stdout, send)
        server = Target(process, int(await lines.receive()), lines)
        for number in range(50):
            assert not await server.greet(f"warm {number}")
        server.at_rest = await server.vitals()
        yield server
        await process.stdin.aclose()
        with trio.move_on_after(SETTLE):
            await process.wait()
        nursery.cancel_scope.cancel()


async def _read_lines(stream, send):
    async with send:
        rest = b""
        async for data in stream:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                await send.send(line)


@frozen
class Batch:
    """What a batch of peers did to the server."""

    complaints: dict = field(factory=dict)
    errors: dict = field(factory=dict)
    leaks: list = field(factory=list)
    kinds: dict = field(factory=dict)
    rss: int = 0

    @property
    def clean(self):
        return not (self.complaints or self.errors or self.leaks)


async def run_batch(server, seeds):
    """Play the scenarios of the seeds, many at a time, and look at the server afterwards."""
    complaints, kinds, waiting = {}, {}, iter(seeds)

    async def peer():
        for seed in waiting:
            chosen = scenario(seed)
            kinds[chosen.kind] = kinds.get(chosen.kind, 0) + 1
            if wrong := complaint(await play(server.port, chosen)):
                complaints[seed] = wrong

    async with trio.open_nursery() as nursery:
        for _ in range(PEERS):
            nursery.start_soon(peer)
    leaks = []
    if wrong := await server.greet(f"after {seeds[-1]}"):
        leaks.append(wrong)
    after = await server.settled()
    return Batch(complaints, after["errors"], leaks + server.leaks(after), kinds, after["rss"])


def together(seeds):
    """A name for seeds that follow each other."""
    return f"{seeds[0]}..{seeds[-1].rpartition('-')[2]}"


def seeds_of(name):
    """The seeds that a name stands for: itself, or all from the first to the last."""
    first, _, last = name.partition("..")
    prefix, _, number = first.rpartition("-")
    return [f"{prefix}-{each}" for each in range(int(number), int(last) + 1)] if last else [name]


async def guilty(seeds):
    """Which of the seeds do harm, found by halving; if none of two halves does any, only together."""
    async with target() as server:
        batch = await attempt(server, seeds)
    if batch.clean:
        return {}
    if len(seeds) == 1:
        return {seeds[0]: batch}
    half = len(seeds) // 2
    return await guilty(seeds[:half]) or await guilty(seeds[half:]) or {together(seeds): batch}


async def attempt(server, seeds):
    """The same as `run_batch`, with the death of the server among what can be found."""
    try:
        return await run_batch(server, seeds)
    except (Dead, OSError) as error:
        return Batch(leaks=[str(error)])


@frozen
class Report:
    """A whole campaign.

    Args:
        requests: how many peers there were.
        seconds: how long it took.
        kinds: how many peers of each kind.
        rss: resident bytes after each batch, with the number of peers so far.
        guilty: the seeds that did harm.
    """

    requests: int
    seconds: float
    kinds: dict
    rss: list
    guilty: dict

    @property
    def slope(self):
        """Bytes that the server grew by per peer in the second half: by then its caches are full."""
        return slope(self.rss[len(self.rss) // 2 :])


def slope(points):
    """The slope of the line through points that fits best."""
    if len(points) < 2:
        return 0.0
    mean_x, mean_y = (sum(column) / len(points) for column in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread


async def campaign(name, requests, batch_size=1000, tell=print):
    """Send that many peers; ``name`` makes the seeds. Stops at the first batch with a guilty seed."""
    began, kinds, rss, found = time.monotonic(), {}, [], {}
    done = 0
    async with target() as server:
        while done < requests and not found:
            seeds = [f"{name}-{number}" for number in range(done, min(done + batch_size, requests))]
            batch = await attempt(server, seeds)
            done += len(seeds)
            kinds = {kind: kinds.get(kind, 0) + batch.kinds.get(kind, 0) for kind in {**kinds, **batch.kinds}}
            rss.append((done, batch.rss))
            tell(f"{done:7} peers, {batch.rss / 2**20:.1f} MiB, {time.monotonic() - began:.0f} s")
            if not batch.clean:
                tell(f"a bad batch: {batch}; which seeds are to blame?")
                found = await guilty(list(batch.complaints)[:1] or seeds) or {together(seeds): batch}
    return Report(done, time.monotonic() - began, kinds, rss, found)
