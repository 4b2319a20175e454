"""Real loopback servers, raw clients, and a log that remembers."""

import logging
from contextlib import asynccontextmanager

import attrs
import h11
import structlog
import trio
import trio.testing
from structlog.testing import LogCapture

from atomr_trio.gateway.server import serve
from atomr_trio.gateway.settings import ServerSettings
from atomr_trio.gateway.sockets import open_sockets


def capturing_log():
    """A log and the list that its entries end up in."""
    capture = LogCapture()
    log = structlog.wrap_logger(
        structlog.PrintLogger(), processors=[capture], wrapper_class=structlog.make_filtering_bound_logger(logging.INFO)
    )
    return log, capture.entries


@attrs.define
class Server:
    """A running server, as tests see it."""

    port: int
    entries: list
    _stop: trio.Event
    stopped: trio.Event = attrs.field(factory=trio.Event)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def stop(self):
        self._stop.set()

    async def connect(self, rcvbuf=None):
        sock = trio.socket.socket()
        if rcvbuf is not None:
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, rcvbuf)
        try:
            await sock.connect(("127.0.0.1", self.port))
        except OSError:
            sock.close()
            raise
        return Client(trio.SocketStream(sock))

    async def get(self, path="/"):
        async with await self.connect() as client:
            return await client.get(path)


@asynccontextmanager
async def serving(app, settings=None, *, serve=serve):
    """Serve an ASGI app on a free loopback port; at the end, stop it and wait until it has ended."""
    log, entries = capturing_log()
    # The kernel's own deadline runs on the real clock; out of the way of the virtual one.
    sockets = open_sockets("127.0.0.1", 0, user_timeout=1000)
    server = Server(sockets[0].getsockname()[1], entries, trio.Event())

    async def run(task_status):
        await serve(
            app,
            sockets,
            settings or ServerSettings(),
            shutdown_trigger=server._stop.wait,
            log=log,
            task_status=task_status,
        )
        server.stopped.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        yield server
        server.stop()


async def living_tasks():
    """How many tasks there are once everything has settled: what a connection leaves behind shows up here."""
    await trio.testing.wait_all_tasks_blocked(0.02)
    return trio.lowlevel.current_statistics().tasks_living


async def until(condition):
    """Wait for what a thread will bring about, which the virtual clock does not see."""
    while not condition():
        await trio.lowlevel.checkpoint()


@attrs.define
class Answer:
    status: int
    headers: dict
    body: bytes
    whole: bool = True


@attrs.define
class Client:
    """An HTTP/1.1 client over one connection that can also misbehave."""

    stream: trio.SocketStream
    _http: h11.Connection = attrs.field(factory=lambda: h11.Connection(h11.CLIENT))

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await trio.aclose_forcefully(self.stream)

    async def raw(self, data):
        await self.stream.send_all(data)

    async def start(self, method, path, body=b"", headers=()):
        """Send the request line and headers, and tell h11 that the body is on its way."""
        length = [("content-length", str(len(body)))] if body else []
        request = h11.Request(method=method, target=path, headers=[("host", "test"), *length, *headers])
        await self.stream.send_all(self._http.send(request))

    async def finish(self, body=b""):
        data = self._http.send(h11.Data(data=body)) if body else b""
        data += self._http.send(h11.EndOfMessage()) or b""
        if data:
            await self.stream.send_all(data)

    async def request(self, method, path, body=b"", headers=()):
        await self.start(method, path, body, headers)
        await self.finish(body)
        return await self.answer()

    async def get(self, path):
        return await self.request("GET", path)

    async def _event(self):
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self.stream.receive_some(65536))
        return event

    async def head(self):
        """Read up to the end of the response's headers."""
        while not isinstance(event := await self._event(), h11.Response):
            pass
        headers = {name.decode(): value.decode() for name, value in event.headers}
        return Answer(event.status_code, headers, b"")

    async def piece(self):
        """The next bytes of the body, or `None` at its end."""
        event = await self._event()
        return bytes(event.data) if isinstance(event, h11.Data) else None

    async def answer(self):
        answer = await self.head()
        answer.body = await self.answer_body()
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        return answer

    async def answer_body(self):
        """The rest of the body, after `head`."""
        body = b""
        while (piece := await self.piece()) is not None:
            body += piece
        return body

    async def wait_closed(self):
        """Read until the server has closed its side; return what came."""
        data = b""
        try:
            while more := await self.stream.receive_some(65536):
                data += more
        except trio.BrokenResourceError:
            pass
        return data
