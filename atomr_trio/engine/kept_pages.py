# pyright: reportUnknownMemberType=false
"""Full pages are copied to where they outlive the process, and the next process finds them in its prefix cache.

So after a kill nothing but the last, incomplete page of each open answer is computed again. A copy is a program like
any other: it is dispatched between two steps, takes the device a few milliseconds, and is read when it is done.
"""

import logging
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

import jax
import numpy as np
from attrs import define, field, frozen

from .blocks import BlockPool
from .buckets import ProgramKey
from .compile_cache import CompileCache
from .device import is_computed
from .device_errors import fault_name
from .device_state import DeviceState
from .page_store import PageStore

__all__ = ["KEEP", "RESTORE", "KeptPages", "name_of"]

logger: logging.Logger = logging.getLogger(__name__)

_AT_ONCE = 8
"""Pages of one copy. A step of 128 prompt tokens fills so many; a copy of fewer costs as much."""

KEEP = ProgramKey("keep", _AT_ONCE)
RESTORE = ProgramKey("restore", _AT_ONCE)

_SAMPLES = 64


def name_of(params: Any, page: str) -> bytes:
    """Return 16 bytes that tell these weights from others: by their shapes, and a few numbers of each array.

    Args:
        params: the weights, in the host's memory.
        page: says what a page is like.
    """
    name = blake2b(page.encode(), digest_size=16)
    for leaf in jax.tree.leaves(params):
        numbers = np.asarray(leaf).reshape(-1)
        name.update(f"{leaf.shape} {leaf.dtype}".encode())
        name.update(numbers[:: len(numbers) // _SAMPLES or 1].tobytes())
    return name.digest()


@frozen
class _Copy:
    """Pages on their way to the host."""

    pages: list[tuple[int, bytes]]
    array: jax.Array


@define
class KeptPages:
    """Keeps the pages of a pool in a store.

    Pages that a sequence has are copied, and stay there. The others' slots are taken when there is no other left, the
    oldest first.

    Args:
        pool: whose pages.
        state: has their content.
        programs: that copy.
        open_store: opens the store; called once, by `restore`.
    """

    _pool: BlockPool
    _state: DeviceState
    _programs: CompileCache
    _open_store: Callable[[], PageStore]
    _store: PageStore | None = field(init=False, default=None)
    # Hashes in the order in which they were written, each with its slot and the page that it was copied from.
    _kept: dict[bytes, tuple[int, int]] = field(init=False, factory=dict[bytes, tuple[int, int]])
    _vacant: list[int] = field(init=False, factory=list[int])
    _noted: dict[bytes, int] = field(init=False, factory=dict[bytes, int])
    _copying: _Copy | None = field(init=False, default=None)

    def restore(self) -> None:
        """Open the store, and let its pages be found in the pool, which must be unused; then keep what is new."""
        try:
            self._store = store = self._open_store()
        except OSError as error:
            logger.warning("no pages are kept for the next process (%s)", error.strerror)
            return
        found = list(store.contents())[: self._pool.free]
        pages = self._pool.take(len(found)) or []
        for start in range(0, len(pages), _AT_ONCE):
            end = start + _AT_ONCE
            self._restore(store, pages[start:end], found[start:end])
        # All at once: those in the first slots are beginnings, and have to live longest.
        self._pool.give_back(pages)
        used = {slot for slot, _ in self._kept.values()}
        self._vacant = [slot for slot in reversed(range(store.slots)) if slot not in used]
        self._pool.watcher = self
        self._programs.prepare([KEEP, RESTORE])

    def keep_up(self) -> None:
        """Copy some of what is new, if the copy before is done; call it between steps."""
        store = self._store
        if store is None:
            return
        try:
            if self._copying is not None and is_computed(self._copying.array):
                copy, self._copying = self._copying, None
                self._write(store, copy)
            if self._copying is None and self._noted and KEEP in self._programs.compiled and self._has_room:
                self._begin_copy()
        except Exception as error:
            # Whatever is wrong with the device, the next step meets it. Here it only costs a copy.
            logger.warning("pages could not be kept for the next process (%s)", fault_name(error))
            self._copying = None

    def remembered(self, page: int, content: bytes) -> None:
        """Note that a page is to be kept."""
        slot, _ = self._kept.get(content, (None, None))
        if slot is not None:
            self._kept[content] = slot, page
            return
        self._noted[content] = page
        if len(self._noted) > 2 * self._pool.num_pages:
            # Copies do not come after: what nobody has any more is dropped.
            self._noted = {name: number for name, number in self._noted.items() if self._pool.is_live(number, name)}

    def disowned(self, contents: Iterable[bytes]) -> None:
        """Let the next process not find these."""
        for content in contents:
            self._noted.pop(content, None)
            slot, _ = self._kept.pop(content, (None, None))
            if slot is not None and self._store is not None:
                self._store.erase(slot)
                self._vacant.append(slot)

    def close(self) -> None:
        """Keep nothing more; what is kept stays where it is."""
        if self._store is not None:
            self._pool.watcher, self._copying = None, None
            self._store.close()
            self._store = None

    def _restore(self, store: PageStore, pages: list[int], found: list[tuple[int, bytes]]) -> None:
        ids = np.zeros(_AT_ONCE, np.int32)
        ids[: len(pages)] = pages
        # A new array each time: the device may read it where it is.
        content = self._state.no_pages(_AT_ONCE)
        for row, (page, (slot, name)) in enumerate(zip(pages, found, strict=True)):
            content[row] = np.frombuffer(store.read(slot), content.dtype).reshape(content.shape[1:])
            self._pool.remember(page, name)
            self._kept[name] = slot, page
        self._state.copy_in(self._programs.get(RESTORE), ids, content)

    def _begin_copy(self) -> None:
        batch: list[tuple[int, bytes]] = []
        while self._noted and len(batch) < _AT_ONCE:
            content = next(iter(self._noted))
            page = self._noted.pop(content)
            if self._pool.is_live(page, content):
                batch.append((page, content))
        if batch:
            ids = np.zeros(_AT_ONCE, np.int32)
            ids[: len(batch)] = [page for page, _ in batch]
            self._copying = _Copy(batch, self._state.copy_out(self._programs.get(KEEP), ids))

    def _write(self, store: PageStore, copy: _Copy) -> None:
        data = np.asarray(copy.array)
        for row, (page, content) in enumerate(copy.pages):
            # In doubt since then, or taken by somebody else: then nobody will miss it.
            slot = self._slot() if self._pool.holds(page, content) and content not in self._kept else None
            if slot is not None:
                store.write(slot, content, memoryview(data[row]).cast("B"))
                self._kept[content] = slot, page

    @property
    def _has_room(self) -> bool:
        return bool(self._vacant) or self._given_up is not None

    @property
    def _given_up(self) -> bytes | None:
        """What was kept for longest of what nobody has any more."""
        return next((name for name, (_, page) in self._kept.items() if not self._pool.is_live(page, name)), None)

    def _slot(self) -> int | None:
        """Return a slot to write to, if there is one: nobody gives way who is still running."""
        if self._vacant:
            return self._vacant.pop()
        given_up = self._given_up
        return None if given_up is None else self._kept.pop(given_up)[0]
