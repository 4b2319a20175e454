"""The device process never outlives its server."""

import ctypes
import os
import signal
import sys
import threading

__all__ = ["exit_with_parent"]

_PR_SET_PDEATHSIG = 1
# Blocked in every thread and waited for in one of them. SIGKILL would do without all that, but the kernel sends the
# signal when the *thread* that started us ends, and a server may well start us from a worker thread that it retires.
_SIGNAL = signal.SIGUSR2
_ORPHANED = 3


def exit_with_parent(parent_pid: int) -> None:
    """From now on end the process, at once, when its parent is gone. Call it before any thread is started.

    Where the kernel has no such signal, the end of the socket has to do.

    Args:
        parent_pid: who started us; if that is not our parent any more, it died before we could ask.
    """
    if sys.platform == "linux":
        signal.pthread_sigmask(signal.SIG_BLOCK, {_SIGNAL})
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(_SIGNAL), 0, 0, 0)
        threading.Thread(target=_watch, args=(parent_pid,), name="parent-death", daemon=True).start()
    # After the request, or a parent that dies in between would be missed.
    _exit_if_orphaned(parent_pid)


def _watch(parent_pid: int) -> None:
    while True:
        signal.sigwait({_SIGNAL})
        _exit_if_orphaned(parent_pid)


def _exit_if_orphaned(parent_pid: int) -> None:
    if os.getppid() != parent_pid:
        os._exit(_ORPHANED)
