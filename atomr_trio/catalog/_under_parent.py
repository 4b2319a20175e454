"""Run a module or a script, and die with the process that started it. Run by path, not imported.

Arguments: the parent's process id, then a module name or a script's path, then its own arguments.
"""

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent, then become what the arguments name."""
    parent, target = int(sys.argv[1]), sys.argv[2]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # The parent may have died before the line above.
    if os.getppid() != parent:
        sys.exit(1)
    del sys.argv[:2]
    if target.endswith(".py"):
        runpy.run_path(target, run_name="__main__")
    else:
        runpy.run_module(target, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
