# pyright: reportUnknownMemberType=false
"""Compiled programs on disk, so that the next process starts sooner."""

import hashlib
import platform
import warnings
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Any

__all__ = ["discard_unreadable_programs", "host_tag", "programs_folder", "use_compilation_cache"]


def use_compilation_cache(cache_dir: str) -> None:
    """Keep compiled programs in a folder, across processes. Affects the whole process."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(programs_folder(cache_dir)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def programs_folder(cache_dir: str) -> Path:
    """Return where this machine's programs are: code for one processor must not be run on another."""
    return Path(cache_dir) / host_tag()


def host_tag() -> str:
    """Name the kind of processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:12]}"


def discard_unreadable_programs(folder: Path) -> None:
    """From now on, when jax warns that a program in the folder cannot be read, delete those of earlier processes.

    A process that is killed, or a disk that is full, while a program is written leaves a torn file, and jax compiles
    around it in every later process, but never replaces it. Affects the warnings of the whole process.
    """
    started = time()

    def discard(message: Warning | str, *_: Any, **__: Any) -> None:
        for entry in list(folder.glob("*")):
            # Programs are compiled in several threads: another one may be doing this, too.
            with suppress(OSError):
                if entry.stat().st_mtime < started:
                    entry.unlink()

    warnings.filterwarnings("always", "Error reading persistent compilation cache")
    warnings.showwarning = discard
