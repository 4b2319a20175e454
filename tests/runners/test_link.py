"""The parent's end of the device process: its pulse, its frames, and a process that misbehaves."""

import os
import signal
import sys

import pytest
import trio

from atomr_trio.core import CudaContextPoisoned, ModelLoadError
from atomr_trio.engine import frames
from atomr_trio.engine.settings import EngineSettings
from atomr_trio.runners import _link
from atomr_trio.runners._child import ChildProcess, describe_exit, memory_kills
from atomr_trio.runners._link import Pulse, open_device, spawn_device

CONFIGURE = frames.Configure(EngineSettings(load_format="dummy"))

PRELUDE = """
import os, signal, socket, sys, time
from atomr_trio.engine import frames
peer = socket.socket(fileno=int(sys.argv[1]))
"""


def stand_in(monkeypatch, body):
    """Let `open_device` start a small script in place of the engine."""
    command = lambda fd, _parent, _pages: [sys.executable, "-c", PRELUDE + body, str(fd)]  # noqa: E731
    monkeypatch.setattr(_link, "child_command", command)


async def collect(pulse=None):
    """Read until the link fails; returns the frames and the failure."""
    received = []
    async with open_device(spawn_device(CONFIGURE, pulse or Pulse())) as link:
        with pytest.raises((CudaContextPoisoned, ModelLoadError)) as caught:
            await link.read(received.append)
        pid = link.process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    return received, caught.value


def test_silence_and_slow_steps_are_told_from_life():
    pulse = Pulse(silence=10, step=20)
    pulse.beat(100)
    pulse.check(110)
    with pytest.raises(CudaContextPoisoned, match="said nothing for 10s"):
        pulse.check(110.1)
    pulse.check_step(frames.Heartbeat(1, 1, 0, 20.0, False))
    pulse.check_step(frames.Heartbeat(1, 1, 0, 99.0, True))
    with pytest.raises(CudaContextPoisoned, match="more than 20s"):
        pulse.check_step(frames.Heartbeat(1, 1, 0, 20.1, False))


@pytest.mark.parametrize(
    ("status", "text"), [(0, "exited with status 0"), (-9, "was ended by SIGKILL"), (-99, "was ended by signal 99")]
)
def test_how_a_process_ended(status, text):
    assert describe_exit(status) == text


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGABRT)", "was ended by SIGABRT"),
        ("peer.close(); time.sleep(60)", "was ended by SIGKILL"),
        ("sys.exit(3)", "exited with status 3"),
        ("peer.sendall(b'\\xff' * 64); time.sleep(60)", "garbage"),
        ("peer.sendall(frames.encode(frames.Pong(1))[:-1])", "exited with status 0"),
        ("peer.sendall(frames.encode(frames.Fatal('ContextPoisoned', 'illegal address')))", "illegal address"),
        ("peer.sendall(frames.encode(frames.Fatal('OutOfMemory', 'too much')))", "too much"),
        ("peer.sendall(frames.encode(frames.Heartbeat(1, 1, 0, 99.0, False))); time.sleep(60)", "more than 60s"),
    ],
)
async def test_every_way_to_die_is_a_poisoned_context(monkeypatch, body, text):
    monkeypatch.setattr("atomr_trio.runners._child.GRACE", 0.5)
    stand_in(monkeypatch, body)
    received, failure = await collect()
    assert received == []
    assert isinstance(failure, CudaContextPoisoned)
    assert text in str(failure)
    assert not failure.from_outside


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_who_is_killed_did_not_do_it_itself(monkeypatch, number):
    stand_in(monkeypatch, f"os.kill(os.getpid(), {int(number)}); time.sleep(60)")
    _, failure = await collect()
    assert failure.message == f"the device process was ended by {number.name}"
    assert failure.from_outside


async def test_who_takes_too_much_memory_did(monkeypatch, tmp_path):
    counters = tmp_path / "vmstat"
    counters.write_text("pgfault 12\noom_kill 3\n")
    monkeypatch.setattr("atomr_trio.runners._child._COUNTERS", counters)
    stand_in(monkeypatch, "peer.recv(1)\nos.kill(os.getpid(), signal.SIGKILL)")
    link = spawn_device(CONFIGURE, Pulse())
    counters.write_text("pgfault 12\noom_kill 4\n")
    async with open_device(link):
        with pytest.raises(CudaContextPoisoned, match="ended by SIGKILL, out of memory") as caught:
            await link.read(lambda _frame: None)
    assert not caught.value.from_outside


async def test_who_was_starved_long_ago_was_somebody_else(monkeypatch, tmp_path):
    counters = tmp_path / "vmstat"
    counters.write_text("oom_kill 3\n")
    monkeypatch.setattr("atomr_trio.runners._child._COUNTERS", counters)
    stand_in(monkeypatch, "peer.recv(1)\nos.kill(os.getpid(), signal.SIGKILL)")
    link = spawn_device(CONFIGURE, Pulse())
    counters.write_text("oom_kill 4\n")
    async with open_device(link), trio.open_nursery() as nursery:
        nursery.start_soon(link.watch)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(CudaContextPoisoned, match=r"ended by SIGKILL$") as caught:
            await link.read(lambda _frame: None)
        nursery.cancel_scope.cancel()
    assert caught.value.from_outside


@pytest.mark.parametrize("text", ["", "oom_kill", "oom_kill many\n", "pgfault 1\n", None])
def test_a_kernel_that_does_not_count_has_killed_nobody(monkeypatch, tmp_path, text):
    counters = tmp_path / "vmstat"
    monkeypatch.setattr("atomr_trio.runners._child._COUNTERS", counters)
    if text is not None:
        counters.write_text(text)
    assert memory_kills() == 0


async def test_a_model_that_cannot_be_loaded_is_no_reason_to_try_again(monkeypatch):
    stand_in(monkeypatch, "peer.sendall(frames.encode(frames.Fatal('Unrecoverable', 'no such tensor')))")
    _, failure = await collect()
    assert str(failure) == "cannot load the model: no such tensor"


async def test_frames_before_the_end_arrive_in_order(monkeypatch):
    stand_in(
        monkeypatch,
        "data = b''.join(frames.encode(frames.Pong(n)) for n in range(100))\n"
        "for byte in data: peer.sendall(bytes([byte]))",
    )
    received, _ = await collect()
    assert received == [frames.Pong(n) for n in range(100)]


async def test_silence_is_noticed(monkeypatch, autojump_clock):
    stand_in(monkeypatch, "time.sleep(600)")
    async with open_device(spawn_device(CONFIGURE, Pulse(silence=30))) as link:
        with pytest.raises(CudaContextPoisoned, match="said nothing"):
            await link.watch()
        assert 30 <= trio.current_time() < 45


async def test_posts_leave_in_order_and_a_dead_peer_does_not_fail_the_writer(monkeypatch):
    stand_in(monkeypatch, "decoder = frames.parent_frame_decoder()\npeer.recv(1)\n")
    async with open_device(spawn_device(CONFIGURE, Pulse())) as link, trio.open_nursery() as nursery:
        nursery.start_soon(link.write)
        with pytest.raises(CudaContextPoisoned):
            await link.read(lambda _frame: None)
        for number in range(100):
            link.post(frames.Ping(number))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_process_that_will_not_leave_is_killed(monkeypatch):
    monkeypatch.setattr("atomr_trio.runners._child.GRACE", 0.05)
    command = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"]
    read, write = os.pipe()
    with os.fdopen(read), os.fdopen(write):
        process = ChildProcess.spawn(command, env=os.environ, pass_fds=[write])
        assert await process.end() == -signal.SIGKILL
        assert await process.wait() == -signal.SIGKILL
