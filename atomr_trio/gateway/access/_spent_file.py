"""What keys have spent, kept beside their file, so that a restart does not fill their budgets again."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from ._account import Spent
from ._key_file import KeyFileError, write_atomically

__all__ = ["read_spent", "spent_path", "write_spent"]


class _Document(msgspec.Struct):
    spent: dict[str, Spent]
    version: int = 1


def spent_path(keys: Path) -> Path:
    """Where the spending of a file's keys is kept."""
    return keys.with_name(f"{keys.name}.spent")


def read_spent(keys: Path) -> dict[str, Spent]:
    """Read what the keys of a file have spent, by their ids; nothing if nothing was ever written.

    Raises:
        KeyFileError: it is damaged. To go on without it would give every budget out again.
    """
    path = spent_path(keys)
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Document).spent
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise KeyFileError(str(path), (error.strerror or "it cannot be read").lower()) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise KeyFileError(str(path), f"{error}; remove it to begin all budgets anew") from None


def write_spent(keys: Path, spent: Mapping[str, Spent]) -> None:
    """Replace what is remembered.

    Raises:
        KeyFileError: it cannot be written.
    """
    write_atomically(spent_path(keys), msgspec.json.encode(_Document(dict(spent))))
