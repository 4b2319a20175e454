"""The file of the keys, and beside it what they have spent: read at the start, reloaded, and written back."""

import time
from collections.abc import Callable
from pathlib import Path

import trio

from .access import ApiKey, KeyFileError, KeyRing, Spent, decode_keys, read_keys, read_spent, write_spent
from .logs import Log

__all__ = ["KeyStore"]

SAVE_EVERY = 5.0
"""Seconds between two looks at what was spent: a server that is killed forgets at most so much of it."""

SAVE_LIMIT = 5.0
"""Seconds that the last one may take."""


class KeyStore:
    """The keys of one server.

    Args:
        keys: the first ones.
        path: where they come from, and can be read again; ``None``: from nowhere, and nothing is kept.
        spent: what they have spent before, by their ids.
        log: where trouble with the files is written.
        clock: Unix seconds.
    """

    def __init__(
        self,
        keys: tuple[ApiKey, ...],
        path: Path | None,
        spent: dict[str, Spent],
        log: Log,
        *,
        clock: Callable[[], float],
    ) -> None:
        self.ring: KeyRing = KeyRing(keys, spent)
        self._path = path
        self._log = log
        self._clock = clock
        self._saved = self.ring.spent(clock())
        self._saving = trio.Lock()

    @classmethod
    def from_file(cls, path: Path, log: Log, *, clock: Callable[[], float] = time.time) -> "KeyStore":
        """Read the keys of a file, and what they have spent. Blocks.

        Raises:
            KeyFileError: one of the files is broken.
        """
        return cls(read_keys(path), path, read_spent(path), log, clock=clock)

    @classmethod
    def from_text(cls, text: str, where: str, log: Log, *, clock: Callable[[], float] = time.time) -> "KeyStore":
        """Take keys from the text that a file would have. Their spending is forgotten with the process.

        Raises:
            KeyFileError: it is broken.
        """
        return cls(decode_keys(text.encode(), where), None, {}, log, clock=clock)

    async def reload(self) -> int:
        """Read the file again; returns how many keys there are now. Requests that run go on.

        Raises:
            KeyFileError: it is broken; the keys stay as they were.
        """
        if self._path is not None:
            self.ring.replace(await trio.to_thread.run_sync(read_keys, self._path))
        return len(self.ring)

    async def keep_spent(self) -> None:
        """Write down what is spent, for ever."""
        while True:
            await trio.sleep(SAVE_EVERY)
            await self._save()

    async def save_spent(self) -> None:
        """Write it down for the last time."""
        with trio.move_on_after(SAVE_LIMIT, shield=True):
            await self._save()

    async def _save(self) -> None:
        async with self._saving:
            spent = self.ring.spent(self._clock())
            if self._path is None or spent == self._saved:
                return
            try:
                await trio.to_thread.run_sync(write_spent, self._path, spent)
            except KeyFileError as error:
                self._log.error("what the keys have spent was not written", reason=str(error))
            else:
                self._saved = spent
