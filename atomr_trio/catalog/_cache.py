"""The cache folder: where a model lives, who may write it now, and what its disk says."""

import errno
import fcntl
import hashlib
import os
import shutil
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

from attrs import define, field

from ._errors import CacheUnusable, HashMismatch, NoSpace
from ._progress import Progress, ProgressCallback, Stage

__all__ = [
    "MARGIN",
    "POLL_S",
    "ModelHome",
    "cache_dir",
    "copy_hashed",
    "file_sha256",
    "require_space",
    "storage_errors",
]

POLL_S = 0.1
MARGIN = 16 * 2**20
"""Bytes kept free besides what a fetch needs."""

_CHUNK = 2**20
_FULL = {errno.ENOSPC, errno.EDQUOT}
_UNUSABLE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOENT,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EFBIG,
    errno.EIO,
    errno.ENOLCK,
}


def cache_dir() -> Path:
    """Return ``$XDG_CACHE_HOME/atomr-trio``, by default ``~/.cache/atomr-trio``. It may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG rules: a relative path there is to be ignored.
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "atomr-trio"


@contextmanager
def storage_errors(folder: Path) -> Generator[None]:
    """Turn what the system says about a disk into ``NoSpace`` and ``CacheUnusable``.

    Other errors pass: the progress callback runs inside, and its broken pipe is not ours.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpace(folder) from error
        if error.errno in _UNUSABLE:
            raise CacheUnusable(folder, error.strerror or str(error)) from error
        raise


def require_space(folder: Path, needed: int) -> None:
    """Check that ``needed`` bytes and a margin are free.

    Raises:
        NoSpace: they are not.
    """
    free = shutil.disk_usage(folder).free
    if free < needed + MARGIN:
        raise NoSpace(folder, needed + MARGIN, free)


def copy_hashed(source: IO[bytes], sink: BinaryIO | None, *, stage: Stage, total: int, report: ProgressCallback) -> str:
    """Read ``source`` to its end, write it to ``sink`` if there is one, and return its SHA-256 in hex."""
    digest = hashlib.sha256()
    done = 0
    report(Progress(stage, 0, total))
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        if sink is not None:
            sink.write(chunk)
        done += len(chunk)
        report(Progress(stage, done, total))
    return digest.hexdigest()


def file_sha256(path: Path, report: ProgressCallback) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as source:
        total = os.fstat(source.fileno()).st_size
        return copy_hashed(source, None, stage="verify", total=total, report=report)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@define
class ModelHome:
    """One model's folder in the cache.

    The file under its final name is always whole: it gets there by one atomic rename, after its hash was checked and
    its bytes were synced. What is still coming lies in ``partial``, on the same file system.

    Args:
        folder: the model's own folder.
        filename: the model file's name in it.
    """

    folder: Path
    filename: str
    lock_fd: int = field(default=-1, init=False)

    @property
    def final(self) -> Path:
        """Where the whole file is, once it is."""
        return self.folder / self.filename

    @property
    def partial(self) -> Path:
        """Where files lie that are not whole yet."""
        return self.folder / "partial"

    @property
    def stamp(self) -> Path:
        """The hash of a file whose catalogue entry does not know it."""
        return self.folder / f"{self.filename}.sha256"

    def known_sha256(self) -> str | None:
        """Return the hash that was checked when the file came, if it was."""
        with suppress(OSError):
            return self.stamp.read_text().strip() or None
        return None

    @contextmanager
    def lock(self, report: ProgressCallback) -> Generator[None]:
        """Hold the right to write in this folder; other processes wait. It ends with the process that holds it."""
        with storage_errors(self.folder):
            self.partial.mkdir(parents=True, exist_ok=True)
            self.lock_fd = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with storage_errors(self.folder):
                _wait_for_lock(self.lock_fd, report)
            yield
        finally:
            os.close(self.lock_fd)
            self.lock_fd = -1

    def commit(self, whole: Path, *, actual: str, expected: str | None) -> Path:
        """Give a complete file its final name, or throw it away.

        Raises:
            HashMismatch: the hashes differ; ``whole`` is deleted and the final name is as it was.
        """
        if expected is not None and actual != expected:
            whole.unlink(missing_ok=True)
            raise HashMismatch(self.filename, expected, actual)
        self.stamp.write_text(f"{actual}\n")
        with whole.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(whole, self.final)
        _sync_folder(self.folder)
        return self.final


def _wait_for_lock(descriptor: int, report: ProgressCallback) -> None:
    # Polled, so that the callback can end the wait; this is a plain thread, no event loop waits with it.
    pause = threading.Event()
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(Progress("wait"))
            pause.wait(POLL_S)
