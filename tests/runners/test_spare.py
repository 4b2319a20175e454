"""The process that stands by: there when it is wanted, handed over once, and gone with its replica."""

import os
import signal

import msgspec
import pytest
import trio

from atomr_trio.core import Unrecoverable
from atomr_trio.engine import frames
from atomr_trio.engine.settings import EngineSettings
from atomr_trio.runners._link import Pulse, open_device, spawn_device
from atomr_trio.runners._spare import MAX_DEATHS, Spare, standing_by

from .test_link import stand_in

SETTINGS = EngineSettings(load_format="dummy")
PATIENT = """
decoder = frames.parent_frame_decoder()
while data := peer.recv(65536):
    for frame in decoder.feed(data):
        if isinstance(frame, frames.Activate):
            peer.sendall(frames.encode(frames.Pong(os.getpid())))
"""
READY = frames.Ready(512, 4, 99, "int8", "cpu", "a CPU", 64, 16, 1.0, 1.0)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def spawn():
    return spawn_device(frames.Configure(SETTINGS, standby="loaded"), Pulse())


async def until(condition):
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - what it waits for happens in another process
            await trio.sleep(0.01)


async def test_it_is_handed_over_once_and_another_one_takes_its_place(monkeypatch):
    stand_in(monkeypatch, PATIENT)
    async with trio.open_nursery() as nursery:
        spare = Spare(spawn)
        nursery.start_soon(spare.run)
        assert spare.take(frames.Activate()) is None
        spare.want()
        await until(lambda: spare.pid is not None)
        pid, link = spare.pid, spare.take(frames.Activate())
        assert spare.pid is None
        assert spare.take(frames.Activate()) is None
        received = []
        async with open_device(link), trio.open_nursery() as session:
            session.start_soon(link.write)
            session.start_soon(link.read, received.append)
            # It goes on, and is the taker's: that the next one starts and is left does not concern it.
            await until(lambda: received)
            assert received == [frames.Pong(pid)]
            spare.want()
            await until(lambda: spare.pid is not None)
            session.cancel_scope.cancel()
        assert not is_running(pid)
        last = spare.pid
        assert is_running(last)
        nursery.cancel_scope.cancel()
    assert not is_running(last)


async def test_one_that_is_not_wanted_is_not_started(monkeypatch):
    stand_in(monkeypatch, PATIENT)
    async with trio.open_nursery() as nursery:
        spare = Spare(spawn)
        nursery.start_soon(spare.run)
        await trio.testing.wait_all_tasks_blocked()
        assert spare.pid is None
        nursery.cancel_scope.cancel()


async def test_one_that_dies_is_replaced_but_not_for_ever(monkeypatch):
    stand_in(monkeypatch, PATIENT)
    spare, seen = Spare(spawn), []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(spare.run)
        spare.want()
        for _ in range(MAX_DEATHS):
            await until(lambda: spare.pid not in (None, *seen))
            seen.append(spare.pid)
            os.kill(spare.pid, signal.SIGKILL)
    assert len(set(seen)) == MAX_DEATHS
    assert not any(map(is_running, seen))


async def test_a_dead_one_is_not_handed_over(monkeypatch):
    stand_in(monkeypatch, PATIENT)
    async with trio.open_nursery() as nursery:
        spare = Spare(spawn)
        nursery.start_soon(spare.run)
        spare.want()
        await until(lambda: spare.pid is not None)
        pid = spare.pid
        os.kill(pid, signal.SIGKILL)
        # No checkpoint: its watcher cannot have noticed.
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - it has been killed
        assert spare.take(frames.Activate()) is None
        await until(lambda: spare.pid not in (None, pid))
        nursery.cancel_scope.cancel()


async def test_where_none_can_be_started_one_does_without(caplog):
    def refuse():
        raise Unrecoverable("the device process cannot be started")

    spare = Spare(refuse)
    spare.want()
    await spare.run()
    assert spare.take(frames.Activate()) is None
    assert "no spare device process" in caplog.text


@pytest.mark.parametrize(
    ("asked", "backend", "standby"),
    [
        ("auto", "cpu", "loaded"),
        ("auto", "gpu", "imported"),
        ("imported", "cpu", "imported"),
        ("loaded", "gpu", "loaded"),
    ],
)
def test_it_is_set_up_like_the_one_that_serves(asked, backend, standby):
    configure = standing_by(SETTINGS, asked, msgspec.structs.replace(READY, backend=backend))
    assert configure.standby == standby
    assert (configure.settings.kv_tokens, configure.settings.max_model_len) == (1024, 512)
