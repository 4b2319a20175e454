"""Pages of the cache in memory that outlives the process: a shared file, of which a kill at any moment spoils nothing.

The file has a head (a key that the server wrote, and the name of whose pages these are), the hashes of what its slots
hold, and the slots. A slot's hash is written after its content and erased before: a process that is killed in between
leaves a slot without a hash.
"""

import mmap
import os
from collections.abc import Iterator

from attrs import define, field

__all__ = ["HEAD_BYTES", "KEY_BYTES", "PageStore", "read_key"]

KEY_BYTES = 32
_NAME_BYTES = 16
_HASH_BYTES = 16

HEAD_BYTES = 4096
"""What of the file is the server's, and stays when it wants all pages forgotten."""

_NOTHING = bytes(_HASH_BYTES)


def read_key(fd: int) -> bytes:
    """Return the key that hashes are made with: every process that uses the file makes the same ones.

    Raises:
        OSError: the file cannot be read.
    """
    return os.pread(fd, KEY_BYTES, 0)


@define
class PageStore:
    """Slots for the content of pages. One process uses it at a time.

    Args:
        map: the file.
        slots: how many there are.
        page_bytes: the size of one.
    """

    _map: mmap.mmap
    slots: int
    _page_bytes: int
    _data: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._data = _data_start(self.slots)

    @classmethod
    def open(cls, fd: int, name: bytes, slots: int, page_bytes: int) -> "PageStore":
        """Map the file; what is in it under another name, or in other sizes, is forgotten.

        Args:
            fd: the file.
            name: 16 bytes: whose pages these are.
            slots: how many are wanted, at least 1.
            page_bytes: the size of one.

        Raises:
            OSError: there is no memory for it.
        """
        size = _data_start(slots) + slots * page_bytes
        if os.pread(fd, _NAME_BYTES, KEY_BYTES) != name or os.fstat(fd).st_size not in (HEAD_BYTES, size):
            # What is cut off and added again is zeros.
            os.ftruncate(fd, HEAD_BYTES)
            os.pwrite(fd, name, KEY_BYTES)
        os.ftruncate(fd, size)
        return cls(mmap.mmap(fd, size), slots, page_bytes)

    def contents(self) -> Iterator[tuple[int, bytes]]:
        """Iterate over (slot, hash) of all slots that hold something."""
        for slot in range(self.slots):
            found = self._map[_hash_place(slot)]
            if found != _NOTHING:
                yield slot, found

    def read(self, slot: int) -> bytes:
        """Return what a slot holds."""
        return self._map[self._place(slot)]

    def write(self, slot: int, content: bytes, data: "bytes | memoryview") -> None:
        """Put a page into a slot, instead of what was there.

        Args:
            slot: which.
            content: the page's hash.
            data: ``page_bytes`` bytes.
        """
        self.erase(slot)
        self._map[self._place(slot)] = data
        self._map[_hash_place(slot)] = content

    def erase(self, slot: int) -> None:
        """Let a slot hold nothing."""
        self._map[_hash_place(slot)] = _NOTHING

    def close(self) -> None:
        """Unmap the file."""
        self._map.close()

    def _place(self, slot: int) -> slice:
        start = self._data + slot * self._page_bytes
        return slice(start, start + self._page_bytes)


def _hash_place(slot: int) -> slice:
    start = HEAD_BYTES + slot * _HASH_BYTES
    return slice(start, start + _HASH_BYTES)


def _data_start(slots: int) -> int:
    # Aligned, so that copying a page is as fast as it can be.
    return -(-(HEAD_BYTES + slots * _HASH_BYTES) // HEAD_BYTES) * HEAD_BYTES
