"""Accounting of the pages that hold keys and values. Pure: knows numbers, not arrays.

A page is held (by one sequence or, if it is full, by several), free, or fenced: given back, but a step on the device
may still write it. Free pages keep their content and its hash until they are taken: the free list is the prefix cache,
least recently used first.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Protocol

from attrs import define, field

from .prefix_cache import PrefixIndex

__all__ = ["GARBAGE_PAGE", "BlockPool", "PageWatcher", "pages_for"]

GARBAGE_PAGE = 0
"""Where padding writes to; never owned by a sequence."""


def pages_for(tokens: int, page_size: int) -> int:
    """Return how many pages hold this many tokens."""
    return -(-tokens // page_size)


class PageWatcher(Protocol):
    """Hears what becomes known of pages, and what must not be believed any more."""

    def remembered(self, page: int, content: bytes, /) -> None:
        """A page that somebody has is full and computed, and found under this hash: new, or had by one more."""
        ...

    def disowned(self, contents: Iterable[bytes], /) -> None:
        """What was computed under these hashes is in doubt."""
        ...


@define
class BlockPool:
    """Pages ``1 .. num_pages``, who has which, and what is in them.

    Args:
        num_pages: pages that sequences can have; page 0 comes on top of them.
        page_size: tokens a page.
        watcher: hears of their content; may be set later.
    """

    num_pages: int
    page_size: int
    watcher: PageWatcher | None = None
    _holders: dict[int, int] = field(init=False, factory=dict[int, int])
    _free: "OrderedDict[int, None]" = field(init=False)
    _fences: dict[int, int] = field(init=False, factory=dict[int, int])
    _fenced: set[int] = field(init=False, factory=set[int])
    _done: int = field(init=False, default=0)
    _index: PrefixIndex = field(init=False, factory=PrefixIndex)

    def __attrs_post_init__(self) -> None:
        self._free = OrderedDict.fromkeys(range(GARBAGE_PAGE + 1, self.num_pages + 1))

    @property
    def free(self) -> int:
        """Pages that can be taken."""
        return len(self._free)

    @property
    def fenced(self) -> int:
        """Pages that nobody has, but that a step on the device may still write."""
        return len(self._fenced)

    @property
    def taken(self) -> frozenset[int]:
        """Pages that somebody has."""
        return frozenset(self._holders)

    @property
    def cached(self) -> int:
        """Pages whose content can be found again, held or free."""
        return len(self._index)

    def holders(self, page: int) -> int:
        """Return how many sequences have a page."""
        return self._holders.get(page, 0)

    def take(self, count: int) -> list[int] | None:
        """Return ``count`` pages to write to, or ``None`` and no page at all when there are not as many.

        What was cached in them is forgotten: pages without content first, then those that were used least recently.
        """
        if count > len(self._free):
            return None
        pages = [self._free.popitem(last=False)[0] for _ in range(count)]
        for page in pages:
            self._index.forget(page)
            self._holders[page] = 1
        return pages

    def find(self, chain: Iterable[bytes]) -> list[int]:
        """Return the pages of the longest cached beginning of a chain of hashes; ``share`` them at once."""
        return self._index.find(chain)

    def free_among(self, pages: Iterable[int]) -> int:
        """Return by how much ``free`` would drop if these pages were shared."""
        return sum(page in self._free for page in pages)

    def share(self, pages: Iterable[int]) -> None:
        """Hold pages that ``find`` returned, to read them only."""
        for page in pages:
            if page in self._holders:
                self._holders[page] += 1
                continue
            self._free.pop(page, None)
            self._fenced.discard(page)
            self._holders[page] = 1
            content = self._index.content(page)
            if content is not None and self.watcher is not None:
                self.watcher.remembered(page, content)

    def remember(self, page: int, content: bytes) -> None:
        """Note the hash of a page that is full and computed.

        Raises:
            ValueError: nobody has the page.
        """
        self._check_taken(page)
        if self._index.put(page, content) and self.watcher is not None:
            self.watcher.remembered(page, content)

    def holds(self, page: int, content: bytes) -> bool:
        """This page is found under this hash."""
        return self._index.content(page) == content

    def is_live(self, page: int, content: bytes) -> bool:
        """Somebody has this page, and it is found under this hash."""
        return page in self._holders and self.holds(page, content)

    def forget(self, pages: Iterable[int]) -> None:
        """Do not find these pages again: what is in them is in doubt."""
        forgotten = [self._index.forget(page) for page in pages]
        if self.watcher is not None:
            self.watcher.disowned([content for content in forgotten if content is not None])

    def forget_all(self) -> None:
        """Find nothing again: the content of all pages is lost."""
        forgotten = self._index.clear()
        if self.watcher is not None:
            self.watcher.disowned(forgotten)

    def give_back(self, pages: Sequence[int], after: int = 0) -> None:
        """Let go of pages, in the order of their tokens.

        Args:
            pages: what a sequence has.
            after: the last step on the device that may use them; they are not taken before it is done.

        Raises:
            ValueError: a page is not taken: given back twice, or never handed out.
        """
        # The last first: a page is found only if all pages before it are, so the beginning has to live longest.
        for page in reversed(pages):
            self._check_taken(page)
            if after > self._done:
                self._fences[page] = max(after, self._fences.pop(page, 0))
            self._holders[page] -= 1
            if not self._holders[page]:
                del self._holders[page]
                self._let_go(page)

    def release_up_to(self, step: int) -> None:
        """Note that all steps up to this number have left the device."""
        self._done = max(self._done, step)
        over = [page for page, fence in self._fences.items() if fence <= self._done]
        for page in over:
            del self._fences[page]
            if page in self._fenced:
                self._fenced.remove(page)
                self._let_go(page)

    def _let_go(self, page: int) -> None:
        if page in self._fences:
            self._fenced.add(page)
            return
        self._free[page] = None
        if page not in self._index:
            self._free.move_to_end(page, last=False)

    def _check_taken(self, page: int) -> None:
        if page not in self._holders:
            raise ValueError(f"page {page} is not taken")
