"""Keys as they are written down: JSON in a file that only its owner reads, or in an environment variable."""

import contextlib
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

import msgspec
from attrs import define

from atomr_trio.core import InferenceError

from ._keys import ApiKey

__all__ = ["KeyFileError", "decode_keys", "encode_keys", "locked", "read_keys", "write_atomically", "write_keys"]

MAX_KEYS = 10_000
MAX_BYTES = 16 * 1024 * 1024

T = TypeVar("T")


@define
class KeyFileError(InferenceError):
    """The keys cannot be read or written. For the operator; a client never sees it."""

    kind: ClassVar[str] = "key_file_error"
    where: str
    reason: str

    def __str__(self) -> str:
        return f"keys in {self.where}: {self.reason}"


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    """A whole file. Unknown fields are refused: a limit with a typo in its name would be no limit."""

    keys: tuple[ApiKey, ...]
    version: int = 1


def decode_keys(text: bytes, where: str) -> tuple[ApiKey, ...]:
    """Read keys.

    Args:
        text: JSON.
        where: it comes from, for the error.

    Raises:
        KeyFileError: it is not what it should be; the message names the field, or the key.
    """
    try:
        document = msgspec.json.decode(text, type=_Document)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise KeyFileError(where, str(error)) from None
    if document.version != 1:
        raise KeyFileError(where, f"version {document.version} is not known here")
    if len(document.keys) > MAX_KEYS:
        raise KeyFileError(where, f"there are more than {MAX_KEYS} keys")
    _check_unique(document.keys, lambda key: key.name, where)
    _check_unique(document.keys, lambda key: key.id, where)
    return document.keys


def _check_unique(keys: Sequence[ApiKey], field: Callable[[ApiKey], str], where: str) -> None:
    for value, count in Counter(map(field, keys)).items():
        if count > 1:
            raise KeyFileError(where, f"`{value}` is there {count} times")


def encode_keys(keys: Iterable[ApiKey]) -> bytes:
    """The text of a file with these keys."""
    return msgspec.json.format(msgspec.json.encode(_Document(tuple(keys))), indent=2) + b"\n"


def read_keys(path: Path) -> tuple[ApiKey, ...]:
    """Read a file.

    Raises:
        KeyFileError: it cannot be read, or is not what it should be.
    """
    return decode_keys(_read(path), str(path))


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise KeyFileError(str(path), (error.strerror or "it cannot be read").lower()) from error
    if len(text) > MAX_BYTES:
        raise KeyFileError(str(path), f"it is larger than {MAX_BYTES} bytes")
    return text


def write_keys(path: Path, keys: Iterable[ApiKey]) -> None:
    """Replace a file as a whole; only its owner may read it.

    Raises:
        KeyFileError: it cannot be written.
    """
    write_atomically(path, encode_keys(keys))


def write_atomically(path: Path, text: bytes) -> None:
    """Replace a file so that who reads it, or restarts after a crash, finds the old text or the new one.

    Raises:
        KeyFileError: it cannot be written.
    """
    try:
        # The directory of the file that a link points to: a rename would replace the link.
        target = path.resolve()
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise KeyFileError(str(path), (error.strerror or "it cannot be written").lower()) from error


@contextlib.contextmanager
def locked(path: Path) -> Generator[None]:
    """Keep other commands from changing the file meanwhile; waits for those that do.

    Raises:
        KeyFileError: the lock file beside it cannot be made.
    """
    lock = path.with_name(f"{path.name}.lock")
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise KeyFileError(str(path), (error.strerror or "it cannot be locked").lower()) from error
    try:
        _lock(handle)
        yield
    finally:
        os.close(handle)


def _lock(handle: int) -> None:
    try:
        import fcntl
    except ImportError:
        # Not on this system. The file is still replaced as a whole, but the later of two writers wins.
        return
    fcntl.flock(handle, fcntl.LOCK_EX)
