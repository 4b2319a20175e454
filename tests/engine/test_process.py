"""The device process, for real: a child on a socketpair."""

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from engine_kit import MAX_LEN, request, tiny_settings

from atomr_trio.core import FinishReason
from atomr_trio.engine import frames as f
from atomr_trio.engine.connection import EXIT_EOF, EXIT_VIOLATION
from atomr_trio.engine.environment import child_command, child_environment
from atomr_trio.engine.process import EXIT_FATAL
from atomr_trio.engine.settings import EngineSettings

PATIENCE = 240  # seconds before a hang fails the test; nothing waits for it


class Child:
    """The server's side, blocking."""

    def __init__(self, *, spawn=subprocess.Popen):
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(PATIENCE)
        with theirs:
            self.process = spawn(
                child_command(theirs.fileno(), os.getpid()),
                env=child_environment(os.environ),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        self.decoder = f.child_frame_decoder()
        self.frames = self.read()

    def read(self):
        while data := self.receive_bytes():
            yield from self.decoder.feed(data)

    def receive_bytes(self):
        try:
            return self.socket.recv(65536)
        except ConnectionError:
            return b""

    def send(self, *frames):
        self.socket.sendall(b"".join(map(f.encode, frames)))

    def configure(self, settings, heartbeat_s=0.05):
        self.send(f.Configure(settings, heartbeat_s))
        return self.until(f.Ready)

    def until(self, kind):
        """Return the next frame of a kind; frames of other kinds are passed over."""
        for frame in self.frames:
            if isinstance(frame, f.Fatal) and kind is not f.Fatal:
                raise AssertionError(frame)
            if isinstance(frame, kind):
                return frame
        raise AssertionError(f"the child left with {self.leave()}")

    def collect(self, *ids):
        """Return the tokens of these requests and all step frames until they have ended."""
        tokens, steps, left = {number: [] for number in ids}, [], set(ids)
        while left:
            steps.append(self.until(f.Step))
            for output in steps[-1].outputs:
                tokens[output.id] += output.token_ids
                if output.finish_reason is not None:
                    left.remove(output.id)
        return tokens, steps

    def leave(self):
        """Wait for the end of the process; return (exit status, standard output, standard error)."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out.decode(), err.decode()

    def close(self):
        self.socket.close()
        if self.process.poll() is None:
            self.process.kill()
        with contextlib.suppress(ValueError):
            self.process.communicate(timeout=PATIENCE)


def is_silent_until_idle(child):
    """Wait until a process has computed nothing for a while; false if it says something meanwhile."""
    stat, used = Path(f"/proc/{child.process.pid}/stat"), None
    while (now := stat.read_text().rpartition(")")[2].split()[11:13]) != used:
        used = now
        if select.select([child.socket], [], [], 0.7)[0]:
            return False
    return True


@pytest.fixture
def spawn():
    children = []

    def make(**kwargs):
        children.append(Child(**kwargs))
        return children[-1]

    yield make
    for child in children:
        child.close()


@pytest.fixture(scope="module")
def child(programs_dir):
    """A child that is ready and idle; tests leave it like that."""
    child = Child()
    child.ready = child.configure(tiny_settings(programs_dir))
    yield child
    child.close()


def test_eight_requests_share_the_steps_of_one_process(child):
    assert (child.ready.max_model_len, child.ready.dtype) == (MAX_LEN, "float32")
    child.send(f.Add([request(n, [10 + n, 5, 6], 20, logprobs=True) for n in range(8)]))
    tokens, steps = child.collect(*range(8))
    assert all(len(got) == 20 for got in tokens.values())
    assert sum(len(step.outputs) == 8 for step in steps) >= 10
    # One frame per step, each counted once.
    numbers = [step.number for step in steps]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert steps[-1].running == steps[-1].waiting == 0
    assert steps[-1].free_pages == child.ready.num_pages
    # The same alone.
    child.send(f.Add([request(8, [13, 5, 6], 20)]))
    assert child.collect(8)[0][8] == tokens[3]


@pytest.mark.parametrize("standby", ["imported", "loaded"])
def test_one_that_stands_by_is_silent_until_it_is_needed(child, spawn, programs_dir, standby):
    child.send(f.Add([request(0, [7, 8, 9], 6)]))
    wanted = child.collect(0)[0]
    spare = spawn()
    spare.send(f.Configure(tiny_settings(programs_dir), 0.05, standby), f.Ping(1))
    assert next(spare.frames) == f.Pong(1)
    assert is_silent_until_idle(spare)
    spare.send(f.Activate(), f.Add([request(0, [7, 8, 9], 6)]))
    ready = spare.until(f.Ready)
    assert (ready.num_pages, ready.max_model_len) == (child.ready.num_pages, child.ready.max_model_len)
    assert spare.collect(0)[0] == wanted
    assert spare.until(f.Heartbeat).busy_s == 0


def test_one_that_is_needed_while_it_loads_goes_on_with_it(spawn, programs_dir):
    spare = spawn()
    spare.send(f.Configure(tiny_settings(programs_dir), 0.05, "loaded"), f.Activate())
    spare.until(f.Ready)
    spare.send(f.Add([request(0, [7, 8, 9], 2)]))
    assert len(spare.collect(0)[0][0]) == 2


def test_one_that_cannot_load_says_so_though_nobody_needs_it(spawn, tmp_path):
    spare = spawn()
    spare.send(f.Configure(EngineSettings(model=str(tmp_path / "none.gguf")), 0.05, "loaded"))
    assert spare.until(f.Fatal).kind == "Unrecoverable"
    assert spare.leave()[0] == EXIT_FATAL


def test_one_that_stands_by_takes_nothing_but_the_word(spawn, programs_dir):
    spare = spawn()
    spare.send(f.Configure(tiny_settings(programs_dir), 0.05, "imported"), f.Abort([1]))
    assert spare.leave()[0] == EXIT_VIOLATION


FAULTS = {
    "kill": lambda child: child.leave()[0] == -signal.SIGKILL,
    "poison": lambda child: child.until(f.Fatal).message == "CUDA_ERROR_ILLEGAL_ADDRESS",
    "bug": lambda child: len(child.collect(0)[0][0]) == 20,
    "hang": lambda child: next(beat for beat in iter(lambda: child.until(f.Heartbeat), None) if beat.busy_s > 0.5),
    "oom": lambda child: len(child.collect(0)[0][0]) == 20,
    "slow": lambda child: len(child.collect(0)[0][0]) == 20,
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_planned_fault_is_met_as_a_real_one(spawn, programs_dir, kind):
    child = spawn()
    faults = [f.PlannedFault(kind, 3, 0.01)]
    child.send(f.Configure(tiny_settings(programs_dir), 0.05, faults=faults))
    child.until(f.Ready)
    child.send(f.Add([request(0, [7, 8, 9], 20)]))
    assert FAULTS[kind](child)


def test_a_frame_that_comes_twice_is_known_by_its_number(spawn, programs_dir):
    child = spawn()
    child.send(f.Configure(tiny_settings(programs_dir), 0.05, faults=[f.PlannedFault("duplicate", 2)]))
    child.until(f.Ready)
    child.send(f.Add([request(0, [7, 8, 9], 6)]))
    numbers = [step.number for step in child.collect(0)[1]]
    assert numbers[:3] == [1, 2, 2]
    assert len(set(numbers)) == len(numbers) - 1


@pytest.mark.parametrize("kind", ["torn", "garbage"])
def test_a_damaged_frame_is_a_violation(spawn, programs_dir, kind):
    child = spawn()
    child.send(f.Configure(tiny_settings(programs_dir), 0.05, faults=[f.PlannedFault(kind, 2)]))
    child.until(f.Ready)
    child.send(f.Add([request(0, [7, 8, 9], 20)]))
    if kind == "garbage":
        with pytest.raises(f.ProtocolViolation):
            child.collect(0)
        return
    with pytest.raises(AssertionError, match="the child left with"):
        child.collect(0)
    assert child.decoder.buffered > 0


def test_a_request_goes_on_in_another_process(child, spawn, programs_dir):
    wanted = request(0, [7, 8, 9, 10], 12, temperature=1.0, seed=5)
    child.send(f.Add([wanted]))
    whole = child.collect(0)[0][0]
    other = spawn()
    other.configure(tiny_settings(programs_dir))
    other.send(f.Add([request(0, [7, 8, 9, 10], 12, temperature=1.0, seed=5, generated=whole[:5])]))
    assert other.collect(0)[0][0] == whole[5:]


def test_an_abort_frees_the_place_and_the_others_go_on(child):
    child.send(f.Add([request(0, [3] * 30, 30), request(1, [4, 5], 25)]))
    child.until(f.Step)
    child.send(f.Abort([0, 77]))
    seen = []
    while True:
        step = child.until(f.Step)
        seen += [output for output in step.outputs if output.id == 0]
        if any(output.finish_reason for output in step.outputs if output.id == 1):
            break
    assert all(output.finish_reason is None for output in seen)
    assert step.running == 0
    assert step.free_pages == child.ready.num_pages


def test_the_last_word_about_a_request_tells_what_is_made_of_it_in_vain(child):
    child.send(f.Add([request(0, [3], 6)]))
    child.collect(0)
    child.send(f.Add([request(0, [3], 60)]))
    child.until(f.Step)
    child.send(f.Abort([0, 77]))
    over = False
    for frame in child.frames:
        if isinstance(frame, f.Aborted):
            break
        over |= isinstance(frame, f.Step) and any(output.finish_reason for output in frame.outputs)
    assert frame.ids == [0, 77]
    # Behind the step that was read last there was one on the device.
    assert frame.unsent == [0 if over else 1, 0]
    child.send(f.Add([request(1, [4, 5], 3)]))
    _, steps = child.collect(1)
    assert {output.id for step in steps for output in step.outputs} == {1}


def test_one_bad_request_is_rejected_alone(child):
    bad = [request(0, [3] * MAX_LEN), request(1, [10**6]), request(2, [])]
    child.send(f.Add([*bad, request(3, [4, 5], 3)]))
    rejected = [child.until(f.Rejected) for _ in bad]
    assert [(r.id, r.kind) for r in rejected] == [
        (0, "context_length_exceeded"),
        (1, "bad_request"),
        (2, "bad_request"),
    ]
    assert str(MAX_LEN) in rejected[0].message
    assert len(child.collect(3)[0][3]) == 3


def test_what_was_already_over_ends_without_a_token(child):
    child.send(f.Add([request(0, [3, 4], 2, generated=[5, 6])]))
    step = child.until(f.Step)
    assert step.outputs == [f.SequenceOutput(0, [], finish_reason=FinishReason.LENGTH)]


def test_prompt_logprobs_come_once_with_the_first_token(child):
    child.send(f.Add([request(0, [3] * 20, 3, prompt_logprobs=True)]))
    _, steps = child.collect(0)
    outputs = [output for step in steps for output in step.outputs]
    assert [len(output.prompt_logprobs or ()) for output in outputs] == [20, 0, 0]


def test_pings_are_answered_and_the_heart_beats_while_idle(child):
    child.send(f.Ping(5))
    assert child.until(f.Pong).number == 5
    beat = child.until(f.Heartbeat)
    assert (beat.running, beat.waiting, beat.busy_s, beat.compiling) == (0, 0, 0.0, False)


SIGNALS = """
import os, signal
from atomr_trio.engine.process import set_signals
# As in a terminal: a test run itself may have been started with the signal ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
set_signals()
os.kill(os.getpid(), signal.SIGINT)
print("alive", flush=True)
os.kill(os.getpid(), signal.SIGTERM)
print("too long")
"""


def test_ctrl_c_of_the_terminal_does_not_end_it_and_sigterm_does():
    command = [sys.executable, "-c", SIGNALS]
    done = subprocess.run(command, env=child_environment(os.environ), capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("alive\n", "", -signal.SIGTERM)


def test_shutdown_ends_it_and_its_terminal_stays_clean(spawn, programs_dir):
    child = spawn()
    child.configure(tiny_settings(programs_dir))
    child.send(f.Add([request(0, [3], 3)]))
    child.collect(0)
    child.send(f.Shutdown())
    assert child.leave() == (EXIT_EOF, "", "")


def test_sigterm_ends_it(spawn):
    child = spawn()
    child.send(f.Ping(1))
    child.until(f.Pong)
    child.process.terminate()
    assert child.leave()[0] == -signal.SIGTERM


@pytest.mark.parametrize("when", ["unconfigured", "loading", "ready", "busy"])
def test_the_end_of_the_socket_ends_it_whatever_it_does(spawn, programs_dir, when):
    child = spawn()
    # Without a cache, loading takes its time.
    settings = tiny_settings(None if when == "loading" else programs_dir)
    if when != "unconfigured":
        child.send(f.Configure(settings, 0.05))
        child.until(f.Heartbeat if when == "loading" else f.Ready)
    if when == "busy":
        child.send(f.Add([request(0, [3], MAX_LEN)]))
        child.until(f.Step)
    child.socket.shutdown(socket.SHUT_RDWR)
    assert child.leave()[0] == EXIT_EOF


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n\r\n", struct.pack("<I", 2**31), f.encode(f.Pong(1)), f.encode(f.Add([]))],
    ids=["another protocol", "oversize", "wrong direction", "not configured"],
)
def test_garbage_ends_it_with_a_status_of_its_own(spawn, data):
    child = spawn()
    child.socket.sendall(data)
    assert_violation(*child.leave())


def test_a_torn_frame_is_garbage_too(spawn):
    child = spawn()
    child.socket.sendall(f.encode(f.Configure(EngineSettings(load_format="dummy")))[:-1])
    child.socket.shutdown(socket.SHUT_WR)
    assert_violation(*child.leave())


def assert_violation(code, out, err):
    assert code == EXIT_VIOLATION
    assert out == ""
    assert err.startswith("atomr-trio device process: protocol violation")
    assert "Traceback" not in err


def test_a_second_configure_is_a_violation(spawn, programs_dir):
    child = spawn()
    child.configure(tiny_settings(programs_dir))
    child.send(f.Configure(tiny_settings(programs_dir)))
    assert child.leave()[0] == EXIT_VIOLATION


def test_a_model_that_cannot_be_loaded_is_told_without_its_path(spawn, tmp_path):
    child = spawn()
    model = tmp_path / "secret.gguf"
    model.write_bytes(b"GGUF but not really")
    child.send(f.Configure(EngineSettings(model=str(model))))
    fatal = child.until(f.Fatal)
    assert fatal.kind == "Unrecoverable"
    assert fatal.message.startswith("cannot load the model")
    assert "secret" not in fatal.message
    code, _, err = child.leave()
    assert code == EXIT_FATAL
    assert "Traceback" not in err


# --- it never outlives its server

PARENT = """
import os, signal, subprocess, sys
from atomr_trio.engine.environment import child_command, child_environment
fd = int(sys.argv[1])
child = subprocess.Popen(child_command(fd, os.getpid()), env=child_environment(os.environ), pass_fds=[fd])
print(child.pid, flush=True)
signal.pause()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel's parent-death signal")
def test_killing_the_server_kills_it_even_if_the_socket_stays_open():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(PATIENCE)
        env = child_environment(os.environ)
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(theirs.fileno())],
            env=env,
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
        )
        with parent:
            pid = int(parent.stdout.readline())
            ours.sendall(f.encode(f.Ping(1)))
            assert f.child_frame_decoder().feed(ours.recv(100)) == [f.Pong(1)]
            parent.kill()
        # `theirs` is still open here, so only the death of its parent can end the child.
        assert_ends(pid)


def assert_ends(pid):
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    ended = poll.poll(PATIENCE * 1000)
    os.close(descriptor)
    assert ended, "the child lives on"


@pytest.mark.skipif(sys.platform != "linux", reason="needs the kernel's parent-death signal")
def test_the_end_of_the_thread_that_started_it_is_not_the_end_of_its_server(spawn):
    made = []

    def start(*args, **kwargs):
        def run():
            made.append((subprocess.Popen(*args, **kwargs), threading.get_native_id()))
            started.set()
            finish.wait(PATIENCE)

        started, finish = threading.Event(), threading.Event()
        thread = threading.Thread(target=run)
        thread.start()
        started.wait(PATIENCE)
        made.append((thread, finish))
        return made[0][0]

    child = spawn(spawn=start)
    (_, native_id), (thread, finish) = made
    child.send(f.Ping(1))
    child.until(f.Pong)
    finish.set()
    thread.join()
    while Path(f"/proc/self/task/{native_id}").exists():
        pass
    child.send(f.Ping(2))
    assert child.until(f.Pong).number == 2
    assert child.process.poll() is None
