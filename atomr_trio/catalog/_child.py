"""A child process that downloads, watched by the growth of a folder."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ._cache import POLL_S
from ._progress import Progress, ProgressCallback

__all__ = ["folder_size", "run_watched"]

_LAUNCHER = Path(__file__).with_name("_under_parent.py")
_GRACE_S = 5.0


def folder_size(folder: Path) -> int:
    """Return how many bytes the files below a folder have; files may come and go meanwhile."""
    total = 0
    for where, _folders, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(where, name)).st_size
    return total


def run_watched(
    target: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    watch: Path,
    total: Callable[[], int],
    lock_fd: int,
    report: ProgressCallback,
) -> int:
    """Run a Python module or script with this interpreter until it ends; return its exit status.

    An exception out of ``report``, or Ctrl-C, ends the child before it goes on. The child holds the lock too: where
    the system cannot tie it to our life, the next process waits for the orphan instead of writing beside it.

    Args:
        target: the module's name, or the script's path, and its arguments.
        env: variables on top of this process's own.
        log: file for its output.
        watch: the folder whose growth is the progress.
        total: tells the bytes expected in the end, 0 while unknown.
        lock_fd: the lock of the model's folder.
        report: gets ``download`` progress about ten times a second.
    """
    # -P: a pip.py in the working directory is not what is meant.
    command = [sys.executable, "-P", str(_LAUNCHER), str(os.getpid()), *target]
    done = 0
    with (
        log.open("wb") as sink,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env},
            pass_fds=(lock_fd,),
        ) as child,
    ):
        try:
            while True:
                expected = total()
                size = folder_size(watch)
                # Temporary copies come and go; what is reported only grows, and never past the end.
                done = max(done, min(size, expected) if expected else size)
                report(Progress("download", done, expected))
                with suppress(subprocess.TimeoutExpired):
                    return child.wait(timeout=POLL_S)
        except BaseException:
            _end(child)
            raise


def _end(child: "subprocess.Popen[bytes]") -> None:
    child.terminate()
    try:
        child.wait(timeout=_GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
