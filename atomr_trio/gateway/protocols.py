"""Hypercorn's HTTP/1.1 and HTTP/2, without what nobody here serves, and with an end to what a peer can drag out.

Left out are upgrades (websockets, h2c), CONNECT and HTTP/2's priorities: a server may ignore the first and the last,
and each of them was a way to make the protocol's code fail. Each difference has a test that fails with the stock
classes.
"""

import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any, cast

import h2.errors
import h2.events
import h2.exceptions
import h2.settings
import h11
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.events import Body, Data, EndBody, EndData
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, H2Protocol
from hypercorn.protocol.h11 import H2ProtocolAssumedError, H11Protocol

__all__ = ["Protocols"]

# What h11 has read as a request.
PREFACE = b"PRI * HTTP/2.0\r\n\r\n"
# Methods know upper and lower case. Hypercorn does not: to it `head` is HEAD, while h11 wants its body.
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Z-]+")
# What h11 takes as a target of HTTP/1.1.
_TARGET = re.compile(rb"[\x21-\x7e]+")


class Http1(H11Protocol):
    """HTTP/1.1 that goes on with it whatever the client would rather speak, but for HTTP/2 from the first byte on."""

    async def _check_protocol(self, event: h11.Request) -> None:
        if (event.method, event.target, event.http_version) == (b"PRI", b"*", b"2.0"):
            raise H2ProtocolAssumedError(PREFACE + self.connection.trailing_data[0])

    async def _create_stream(self, request: h11.Request) -> None:
        if not _METHOD.fullmatch(request.method):
            await self._send_error_response(HTTPStatus.BAD_REQUEST)
            await self.send(Closed())
            return
        if any(name == b"upgrade" for name, _ in request.headers):
            request = _without_upgrade(request)
        await super()._create_stream(request)


def _without_upgrade(request: h11.Request) -> h11.Request:
    headers = [(name, value) for name, value in request.headers if name != b"upgrade"]
    return h11.Request(method=request.method, target=request.target, headers=headers, http_version=request.http_version)


class _Waiting:
    """A stream that waits for its client to take something, from one progress to the next."""

    def __init__(self, timeout: float) -> None:
        self.scope = trio.CancelScope(deadline=trio.current_time() + timeout)
        self.progress = trio.Event()

    def note_progress(self, timeout: float) -> None:
        self.scope.deadline = trio.current_time() + timeout
        self.progress.set()
        self.progress = trio.Event()


class Http2(H2Protocol):
    """HTTP/2 whose streams do each other no harm, and end when their client takes nothing any more."""

    def __init__(self, *args: Any, write_timeout: float) -> None:
        super().__init__(*args)
        self._write_timeout = write_timeout
        self._waiting: dict[int, _Waiting] = {}
        self.connection.local_settings = h2.settings.Settings(
            client=False,
            initial_values={
                h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: self.config.h2_max_concurrent_streams,
                h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: self.config.h2_max_header_list_size,
            },
        )

    async def handle(self, event: Event) -> None:
        """Take what arrived, and say whether the connection is idle: a stream that the client resets says nothing."""
        await super().handle(event)
        if isinstance(event, RawData) and not self.closed:
            await self.send(Updated(idle=self.idle))

    async def stream_send(self, event: StreamEvent) -> None:
        """Send a piece of an answer; end the stream if the client leaves no room for it for too long."""
        if not isinstance(event, Body | Data | EndBody | EndData):
            await super().stream_send(event)
            return
        waiting = self._waiting[event.stream_id] = _Waiting(self._write_timeout)
        try:
            with waiting.scope:
                await super().stream_send(event)
                # The stock pause ends too early when the client's window is closed: the buffer would grow for ever.
                while self._unsent(event.stream_id) >= BUFFER_HIGH_WATER:
                    await waiting.progress.wait()
        finally:
            self._waiting.pop(event.stream_id, None)
        if waiting.scope.cancelled_caught:
            await self._end_stream(event.stream_id, h2.errors.ErrorCodes.CANCEL)

    async def _send_data(self, stream_id: int) -> None:
        before = self._unsent(stream_id)
        await super()._send_data(stream_id)
        if self._unsent(stream_id) < before and stream_id in self._waiting:
            self._waiting[stream_id].note_progress(self._write_timeout)

    def _unsent(self, stream_id: int) -> int:
        buffer = self.stream_buffers.get(stream_id)
        return 0 if buffer is None else len(buffer.buffer)

    async def _end_stream(self, stream_id: int, code: h2.errors.ErrorCodes) -> None:
        self._refuse(stream_id, code)
        await self._flush()
        await self._close_stream(stream_id)
        await self._window_updated(stream_id)
        await self.send(Updated(idle=self.idle))

    def _refuse(self, stream_id: int, code: h2.errors.ErrorCodes) -> None:
        try:
            self.connection.reset_stream(stream_id, code)
        except h2.exceptions.ProtocolError:
            # It is closed already, or the connection is.
            return

    async def _handle_events(self, events: Iterable[h2.events.Event]) -> None:
        # Looked at one by one, because a stream may end while its predecessors are handled.
        await super()._handle_events(cast("Any", self._sane(events)))

    def _sane(self, events: Iterable[h2.events.Event]) -> Iterator[h2.events.Event]:
        for event in events:
            if isinstance(event, h2.events.RequestReceived) and not _is_sane(event):
                self._refuse(event.stream_id, h2.errors.ErrorCodes.PROTOCOL_ERROR)
            elif isinstance(event, h2.events.DataReceived) and event.stream_id not in self.streams:
                # The rest of a body whose request has its answer; it used up some of the connection's window.
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            else:
                yield event

    async def _priority_updated(self, event: h2.events.PriorityUpdated) -> None:
        pass


def _is_sane(event: h2.events.RequestReceived) -> bool:
    fields = dict(event.headers or ())
    method, path = fields.get(b":method", b""), fields.get(b":path", b"")
    readable = _METHOD.fullmatch(method) and _TARGET.fullmatch(path) and b"" not in fields
    return bool(readable) and method != b"CONNECT"


class Protocols(ProtocolWrapper):
    """Speaks HTTP/1.1, or HTTP/2 with a client that begins with it. Arguments as Hypercorn's, and one more.

    Args:
        write_timeout: seconds that an HTTP/2 stream waits for its client to take something.
    """

    def __init__(self, *args: Any, write_timeout: float) -> None:
        super().__init__(*args)
        self._write_timeout = write_timeout
        self.protocol: H11Protocol | H2Protocol = (
            self._http2() if isinstance(self.protocol, H2Protocol) else Http1(*self._common())
        )

    async def handle(self, event: Event) -> None:
        """Take what arrived."""
        try:
            await self.protocol.handle(event)
        except H2ProtocolAssumedError as assumed:
            self.protocol = self._http2()
            await self.protocol.initiate()
            await self.protocol.handle(RawData(data=assumed.data))

    def _http2(self) -> Http2:
        return Http2(*self._common(), write_timeout=self._write_timeout)

    def _common(self) -> tuple[Any, ...]:
        whose = (self.app, self.config, self.context, self.task_group, self.state)
        return (*whose, self.ssl, self.client, self.server, self.send)
