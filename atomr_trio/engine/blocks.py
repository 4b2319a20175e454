"""Accounting of the pages that hold keys and values. Pure: knows numbers, not arrays."""

from collections.abc import Iterable

from attrs import define, field

__all__ = ["GARBAGE_PAGE", "BlockPool", "pages_for"]

GARBAGE_PAGE = 0
"""Where padding writes to; never owned by a sequence."""


def pages_for(tokens: int, page_size: int) -> int:
    """Return how many pages hold this many tokens."""
    return -(-tokens // page_size)


@define
class BlockPool:
    """Pages ``1 .. num_pages`` and who has which: free or taken, nothing else.

    Args:
        num_pages: pages that sequences can have; page 0 comes on top of them.
        page_size: tokens a page.
    """

    num_pages: int
    page_size: int
    _free: list[int] = field(init=False)
    _taken: set[int] = field(init=False, factory=set[int])

    def __attrs_post_init__(self) -> None:
        # Popped from the end: low pages first, and what was freed last (and may still be in a cache) first.
        self._free = list(range(self.num_pages, GARBAGE_PAGE, -1))

    @property
    def free(self) -> int:
        """Pages that can be taken."""
        return len(self._free)

    @property
    def taken(self) -> frozenset[int]:
        """Pages that somebody has."""
        return frozenset(self._taken)

    def take(self, count: int) -> list[int] | None:
        """Return ``count`` pages, or ``None`` and no page at all when there are not as many."""
        if count > len(self._free):
            return None
        pages = [self._free.pop() for _ in range(count)]
        self._taken.update(pages)
        return pages

    def give_back(self, pages: Iterable[int]) -> None:
        """Return pages to the pool.

        Raises:
            ValueError: a page is not taken: given back twice, or never handed out.
        """
        for page in pages:
            if page not in self._taken:
                raise ValueError(f"page {page} is not taken")
            self._taken.remove(page)
            self._free.append(page)
