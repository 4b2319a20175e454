"""A child process that a Trio task can wait for, and that dies with its parent."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio
from attrs import define, field

__all__ = ["ChildProcess", "describe_exit", "memory_kills"]

GRACE = 2.0
"""Seconds that a process gets to leave by itself before it is killed."""

_COUNTERS = Path("/proc/vmstat")

_SENT = {signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGQUIT, signal.SIGTERM}
"""Signals that somebody sends. The others are what a process gets for its own doing."""


def memory_kills() -> int:
    """Return how many processes the kernel has killed for memory since the machine started; 0 where nobody tells."""
    try:
        counters = dict(line.split() for line in _COUNTERS.read_text().splitlines())
        return int(counters["oom_kill"])
    except (OSError, ValueError, KeyError):
        return 0


@define
class ChildProcess:
    """A spawned process.

    It is started from the calling thread on purpose. ``trio.lowlevel.open_process`` starts it from a worker thread,
    and Linux delivers the parent-death signal when the *thread* that made the child ends: Trio's idle workers end
    after ten seconds, and the device process with them.
    """

    _popen: "subprocess.Popen[bytes]"
    _by_us: bool = field(default=False, init=False)
    _starved_before: int = field(factory=memory_kills, init=False)

    @classmethod
    def spawn(cls, command: Sequence[str], *, env: Mapping[str, str], pass_fds: Sequence[int]) -> "ChildProcess":
        """Start a process with these descriptors besides the usual ones.

        It gets a session of its own: Ctrl-C in the terminal is for the parent, which decides what it means. Its
        standard output goes to our standard error, so that a command's output stays clean.
        """
        popen = subprocess.Popen(
            command,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=sys.__stderr__,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        return cls(popen)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    @property
    def has_exited(self) -> bool:
        """It is gone by now."""
        return self._popen.poll() is not None

    @property
    def was_killed(self) -> bool:
        """Somebody ended it for reasons of their own: neither its doing, nor ours."""
        return not self._by_us and not self.was_starved and -(self._popen.poll() or 0) in _SENT

    def lives_now(self) -> None:
        """Note that whomever the kernel has killed for memory by now, it was not this process. To be called often."""
        self._starved_before = memory_kills()

    @property
    def was_starved(self) -> bool:
        """The kernel had too little memory, and most likely killed it for that."""
        return self._popen.poll() == -signal.SIGKILL and memory_kills() > self._starved_before

    async def wait(self) -> int:
        """Wait for the end; returns the exit status, or minus the signal's number."""
        if self._popen.returncode is None:
            await self._wait_exited()
        return self._popen.wait()

    async def _wait_exited(self) -> None:
        if not hasattr(os, "pidfd_open"):
            await trio.to_thread.run_sync(self._popen.wait, abandon_on_cancel=True)
            return
        pidfd = os.pidfd_open(self._popen.pid)
        try:
            await trio.lowlevel.wait_readable(pidfd)
        finally:
            os.close(pidfd)

    async def end(self) -> int:
        """Wait a moment for the process to leave by itself, then kill it; it is gone when this returns."""
        with trio.CancelScope(shield=True):
            with trio.move_on_after(GRACE) as patience:
                await self.wait()
            if patience.cancelled_caught:
                self._by_us = True
                self._popen.kill()
            # SIGKILL cannot be refused: this wait ends.
            await self.wait()
        return self._popen.wait()


def describe_exit(status: int) -> str:
    """Say how a process ended."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
