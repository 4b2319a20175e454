"""Letting others go first, on a machine that has few cores."""

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

__all__ = ["be_nice", "be_nice_as_a_whole"]

_NICE = 19


def be_nice() -> None:
    """Let everybody else go first, from now on: this thread and those that it starts."""
    # Only Linux has a priority per thread; elsewhere this would slow the whole process down.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def be_nice_as_a_whole(nice: bool, /) -> None:
    """The same for all threads of a process that leads a session, and back again; for no other process.

    Where Linux groups processes by session, the niceness of a thread counts among those of its own session alone; that
    of the session may be taken back, which that of a thread may not.
    """
    # Or the terminal that it was started from, with all that runs there, would be nice from now on.
    if not hasattr(os, "getsid") or os.getsid(0) != os.getpid():
        return
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(_NICE if nice else 0))
