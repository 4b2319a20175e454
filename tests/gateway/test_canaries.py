"""What we lean on in Hypercorn that is not public. A red test here means: read the new version before using it."""

import importlib.metadata
import inspect

import h2.connection
import h11
import hypercorn.events
import hypercorn.protocol
import hypercorn.protocol.h2
import hypercorn.protocol.h11
import hypercorn.protocol.http_stream
import hypercorn.trio.task_group
import hypercorn.trio.tcp_server
import hypercorn.utils
import pytest
import trio
import trio.testing
from hypercorn.config import Config
from hypercorn.trio.worker_context import TrioSingleTask, WorkerContext

from atomr_trio.gateway import driver, protocols

CONNECTION = ["app", "config", "context", "task_group", "state", "ssl", "client", "server", "send"]
H1, H2 = hypercorn.protocol.h11.H11Protocol, hypercorn.protocol.h2.H2Protocol


def parameters(function):
    return list(inspect.signature(function).parameters)


def functions_of(cls):
    return {name for name, value in vars(cls).items() if inspect.isfunction(value) or isinstance(value, property)}


def test_nobody_else_chose_these_versions():
    versions = {name: importlib.metadata.version(name) for name in ["hypercorn", "h11", "h2"]}
    assert versions["hypercorn"].startswith("0.18.")
    assert versions["h11"].startswith("0.")
    assert versions["h2"].startswith("4.")


def test_a_protocol_is_made_of_what_we_hand_it():
    assert parameters(hypercorn.protocol.ProtocolWrapper) == [*CONNECTION, "alpn_protocol"]
    for protocol in [H1, H2]:
        assert [name.replace("connection_state", "state") for name in parameters(protocol)] == CONNECTION
    assert parameters(hypercorn.utils.parse_socket_addr) == ["family", "address"]


def test_the_wrapper_does_no_more_than_ours():
    assert functions_of(hypercorn.protocol.ProtocolWrapper) == {"__init__", "initiate", "handle"}
    source = inspect.getsource(hypercorn.protocol.ProtocolWrapper.handle)
    assert source.count("except") == 2
    assert "except H2ProtocolAssumedError as error" in source
    assert "except H2CProtocolRequiredError as error" in source


def test_the_connection_does_no_more_than_ours():
    source = inspect.getsource(hypercorn.trio.tcp_server.TCPServer.run)
    for step in ["selected_alpn_protocol", "getpeername", "getsockname", "TaskGroup()", "ConnectionState"]:
        assert step in source
    awaited = [line.strip() for line in source.splitlines() if "await " in line]
    assert awaited == [
        "await self.stream.do_handshake()",
        "await self.protocol.initiate()",
        "await self.idle_task.restart(self._task_group, self._idle_timeout)",
        "await self._read_data()",
        "await self._close()",
    ]


def test_http1_asks_our_methods():
    assert parameters(H1._check_protocol) == ["self", "event"]
    assert parameters(H1._create_stream) == ["self", "request"]
    source = inspect.getsource(H1._handle_events)
    # The timer stops first: an HTTP/2 connection begins as a busy one.
    places = [source.index(step) for step in ["Updated(idle=False)", "_check_protocol(event)", "_create_stream(event)"]]
    assert places == sorted(places)
    assert parameters(hypercorn.protocol.h11.H2ProtocolAssumedError) == ["data"]


def test_http2_is_made_of_the_parts_that_we_replace():
    assert functions_of(H2) == {
        "__init__", "idle", "initiate", "send_task", "_send_data", "handle", "stream_send", "_handle_events", "_flush",
        "_window_updated", "_priority_updated", "_create_stream", "_create_server_push", "_close_stream",
    }  # fmt: skip
    assert parameters(H2._send_data) == ["self", "stream_id"]
    assert parameters(H2._handle_events) == ["self", "events"]
    assert parameters(H2._close_stream) == parameters(H2._window_updated) == ["self", "stream_id"]
    # Looked at lazily, so that we can look at each event when its turn comes.
    assert "for event in events:" in inspect.getsource(H2._handle_events)
    assert hypercorn.protocol.h2.BUFFER_HIGH_WATER == protocols.BUFFER_HIGH_WATER


def test_http2_keeps_its_streams_where_we_look():
    connection = H2(None, Config(), WorkerContext(None), None, {}, False, None, None, None)
    assert (connection.streams, connection.stream_buffers, connection.closed, connection.idle) == ({}, {}, False, True)
    assert isinstance(connection.connection, h2.connection.H2Connection)
    assert hypercorn.protocol.h2.StreamBuffer(WorkerContext.event_class).buffer == b""


def test_our_methods_replace_some_that_are_there():
    for ours, theirs in [
        (protocols.Http1, H1),
        (protocols.Http2, H2),
        (protocols.Protocols, hypercorn.protocol.ProtocolWrapper),
    ]:
        own = {"_unsent", "_end_stream", "_refuse", "_sane", "_http2", "_common"}
        assert functions_of(ours) - own <= functions_of(theirs)
    assert {"run", "protocol_send", "_read_data", "_close"} <= functions_of(driver.GuardedConnection)


def test_a_request_in_h11_can_be_made_again():
    request = h11.Request(method="GET", target="/", headers=[("Host", "a"), ("Upgrade", "x")], http_version="1.0")
    assert list(request.headers) == [(b"host", b"a"), (b"upgrade", b"x")]
    assert (request.method, request.target, request.http_version) == (b"GET", b"/", b"1.0")


async def test_the_idle_timer_can_be_stopped_and_started_again(patient_clock):
    rang = []

    async def ring():
        await trio.sleep(1)
        rang.append(trio.current_time())

    timer = TrioSingleTask()
    async with hypercorn.trio.task_group.TaskGroup() as group:
        await timer.restart(group, ring)
        await timer.stop()
        await trio.sleep(5)
        assert rang == []
        await timer.restart(group, ring)
        await timer.restart(group, ring)
        await trio.sleep(5)
        assert len(rang) == 1


@pytest.mark.parametrize("name", ["Closed", "RawData", "Updated"])
def test_the_events_are_these(name):
    fields = {"Closed": [], "RawData": ["data", "address"], "Updated": ["idle"]}
    assert parameters(getattr(hypercorn.events, name)) == fields[name]
