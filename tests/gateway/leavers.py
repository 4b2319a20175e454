"""Clients that leave in every way, a gateway before them, and an engine that steps only when it is told to."""

import json
import socket
import struct
from contextlib import asynccontextmanager

import attrs
import h2.events
import trio

from atomr_trio.actor import Props
from atomr_trio.core import CudaContextPoisoned, Deployment, ExecuteBatch, ModelRunner, Serving, TokenChunk
from atomr_trio.gateway.actor import ApiGatewayActor, GatewayConfig
from atomr_trio.gateway.settings import GatewaySettings
from atomr_trio.runtime import Cluster, worker
from atomr_trio.runtime.journal import Journal
from atomr_trio.runtime.messages import GetLoad

from .harness import Client, capturing_log
from .test_driver import next_event
from .test_protocols import h2_peer

PREFILL = 3
"""Steps until a request has its first token."""

WORD = "word "
WORDS = 12
SPINS = 20_000


async def soon(condition):
    """Wait for what the kernel and the other tasks bring about; the clock stands still meanwhile."""
    for _ in range(SPINS):
        if condition():
            return
        await trio.lowlevel.checkpoint()
    raise AssertionError("it did not happen")


@attrs.define(eq=False)
class Row:
    """One request in the engine."""

    out: object
    behind: int = PREFILL
    told: int = 0
    done: trio.Event = attrs.field(factory=trio.Event)

    def step(self):
        if self.behind > 1:
            self.behind -= 1
            return
        self.told += 1
        self.out.push(TokenChunk(text_delta=WORD, token_ids=(7,)))
        if self.told >= WORDS:
            self.done.set()


class Held(ModelRunner):
    """Its engine computes a step when ``step`` is called, and at no other time."""

    resumable = True

    def __init__(self):
        self.rows = {}
        self.left = []
        self.sessions = 0
        self.gate = trio.Event()
        self.gate.set()
        self._broken = trio.Event()

    def step(self):
        for row in list(self.rows.values()):
            row.step()

    def die(self):
        """End the session; the next one waits until the gate is set."""
        self.gate = trio.Event()
        self._broken.set()

    @asynccontextmanager
    async def session(self):
        self.sessions += 1
        await self.gate.wait()
        self._broken = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            yield
            nursery.cancel_scope.cancel()

    async def _watch(self):
        await self._broken.wait()
        raise CudaContextPoisoned("the test wants it")

    async def execute(self, batch, out):
        row = self.rows[batch.request_id] = Row(out, told=len(batch.generated))
        try:
            await row.done.wait()
        except trio.Cancelled:
            self.left.append(batch.request_id)
            raise
        finally:
            del self.rows[batch.request_id]


@attrs.define
class World:
    """A gateway over one replica."""

    cluster: Cluster
    engine: Held
    gateway: ApiGatewayActor
    journals: list

    @property
    def port(self):
        return int(self.gateway.urls[0].rpartition(":")[2])

    @property
    def connections(self):
        return self.gateway.connections.open

    @property
    def requests(self):
        """Those who are in the tree."""
        [gateway] = [node for node in self.cluster.system.tree().children if node.path == "/gateway"]
        return [child.path for child in gateway.children]

    @property
    def journalled(self):
        """Those whom the worker remembers."""
        return [entry for journal in self.journals for entry in journal._entries]

    async def load(self):
        return await self.cluster.system.lookup("/deployments/m-0").ask(GetLoad(), timeout=1)

    async def cancelled(self):
        counted = (await self.cluster.metrics()).get("m")
        return 0 if counted is None else counted.requests_cancelled

    def submit(self, name):
        return self.cluster.submit(ExecuteBatch(request_id=name, model="m", prompt="x"))


@asynccontextmanager
async def world(monkeypatch, *, slots=8, **app):
    engine, journals, (log, entries) = Held(), [], capturing_log()

    async def create(_deployment):
        return engine

    def journal(*given):
        journals.append(Journal(*given))
        return journals[-1]

    monkeypatch.setattr(worker, "Journal", journal)
    config = GatewayConfig(port=0, app=GatewaySettings(access_log=False, **app))
    async with Cluster.open(create_runner=create) as cluster:
        serving = Serving(max_concurrent=slots)
        await cluster.deploy(Deployment(name="m", model="m", runtime="held", serving=serving, max_restarts=10**6))
        actor = ApiGatewayActor(config, cluster.directory, log=log)
        await cluster.system.actor_of(Props(factory=lambda: actor), "gateway")
        yield World(cluster, engine, actor, journals)
    assert [entry for entry in entries if entry["log_level"] == "error"] == []


CHAT = {"messages": [{"role": "user", "content": "hi"}]}
BODIES = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "hi"},
    "/v1/messages": {**CHAT, "max_tokens": 50},
    "/v1/responses": {"input": "hi"},
}


def body_of(route, n=1, *, stream):
    count = {} if n == 1 else {"n": n}
    return json.dumps({"model": "m", **BODIES[route], "stream": stream, **count}).encode()


class Peer:
    """A client over HTTP/1.1 that asks, and leaves in one of these ways."""

    ways = ("leave", "reset", "half_close")

    def __init__(self, stream):
        self._client = Client(stream)

    @classmethod
    async def connect(cls, port):
        return cls(await trio.open_tcp_stream("127.0.0.1", port))

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()

    async def ask(self, route, body):
        await self._client.start("POST", route, body)
        await self._client.finish(body)

    async def read_word(self):
        """Read until there is something of the answer."""
        await self._client.head()
        seen = b""
        while WORD.strip().encode() not in seen:
            seen += await self._client.piece()

    async def leave(self, way):
        sock = self._client.stream.socket
        if way == "half_close":
            await self._client.stream.send_eof()
            return
        if way == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.close()

    async def close(self):
        await trio.aclose_forcefully(self._client.stream)


class PeerOfMany(Peer):
    """A client over HTTP/2; ``cancel`` takes its request back, and the connection stays."""

    ways = ("cancel", "leave", "reset")

    def __init__(self, stream):
        super().__init__(stream)
        self._http = h2_peer()

    async def ask(self, route, body):
        pseudo = {":method": "POST", ":scheme": "http", ":authority": "test", ":path": route}
        headers = [(name.encode(), value.encode()) for name, value in pseudo.items()]
        self._http.send_headers(1, [*headers, (b"content-length", b"%d" % len(body))])
        self._http.send_data(1, body, end_stream=True)
        await self._client.raw(self._http.data_to_send())

    async def read_word(self):
        seen = b""
        while WORD.strip().encode() not in seen:
            seen += (await next_event(self._client, self._http, h2.events.DataReceived)).data

    async def leave(self, way):
        if way != "cancel":
            await super().leave(way)
            return
        self._http.reset_stream(1, 8)
        await self._client.raw(self._http.data_to_send())
