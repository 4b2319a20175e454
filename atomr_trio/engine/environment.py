"""How a device process is started: its command and its environment. Imports no jax."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["child_command", "child_environment"]

_DEFAULTS = {
    # The child is alone on its device: take nearly all of it, in one piece, so that it never fragments.
    "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.9",
    # C++ chatter goes to standard error before Python could silence it: errors only.
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "GLOG_minloglevel": "2",
}

# Python options of a test run or an operator's shell that would make a long-lived device process fail or hang.
_DROPPED = frozenset({"PYTHONWARNINGS", "PYTHONSTARTUP", "PYTHONINSPECT"})

_PACKAGE_ROOT = Path(__file__).parents[2]


def child_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a device process; what ``base`` says of the device is kept."""
    kept = {name: value for name, value in base.items() if name not in _DROPPED}
    return {**_DEFAULTS, **kept, **_python_path(kept)}


def _python_path(base: Mapping[str, str]) -> dict[str, str]:
    """Let the child find this package where it is not installed: a checkout that is run in place."""
    if _PACKAGE_ROOT.name in ("site-packages", "dist-packages"):
        return {}
    paths = [str(_PACKAGE_ROOT), *filter(None, base.get("PYTHONPATH", "").split(os.pathsep))]
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def child_command(fd: int, parent_pid: int, pages_fd: int | None = None) -> list[str]:
    """Return the command that runs a device process on a socket it inherits.

    Args:
        fd: the socket's number, passed on (``pass_fds``).
        parent_pid: whose death ends the child.
        pages_fd: a file that it inherits, too, for pages that outlive it.
    """
    # -P: the folder the server was started in stays off the path, or a stray queue.py in it would be imported.
    python = [sys.executable, "-P", "-m", "atomr_trio.engine.process"]
    kept = [] if pages_fd is None else ["--pages-fd", str(pages_fd)]
    return [*python, "--fd", str(fd), "--parent-pid", str(parent_pid), *kept]
