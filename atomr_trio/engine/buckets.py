"""The static shapes that step programs are compiled for. Pure.

A program's cost grows with its shape, and each takes seconds to compile: so a few are compiled before the engine is
ready, a ladder of longer contexts right after, and the rest when they are first wanted, while a larger one serves.
"""

from bisect import bisect_left
from collections.abc import Iterable

from attrs import field, frozen

__all__ = ["Buckets", "ProgramKey", "best_cover", "powers_of_two"]

_FIRST_PAGES = 16
_PAGES_STEP = 4


@frozen(order=True)
class ProgramKey:
    """The shape of a step program.

    Args:
        rows: sequences, ``B``.
        chunk: tokens a row, ``C``; 1 is decoding.
        pages: width of the page table, ``W``.
        scored: also return the log probability of each of the chunk's next tokens.
    """

    rows: int
    chunk: int
    pages: int
    scored: bool = False

    def covers(self, wanted: "ProgramKey") -> bool:
        """A step of shape ``wanted`` can run in this program, padded. Decodes and chunks stay apart."""
        same_kind = (self.chunk == 1, self.scored) == (wanted.chunk == 1, wanted.scored)
        sizes = self.rows >= wanted.rows and self.chunk >= wanted.chunk and self.pages >= wanted.pages
        return same_kind and sizes

    @property
    def cost(self) -> int:
        """What a step in this program costs, in no unit: products per row, and pages read per row."""
        return self.rows * (64 * self.chunk + self.pages)


def best_cover(wanted: ProgramKey, available: Iterable[ProgramKey]) -> ProgramKey | None:
    """Return the cheapest available shape that covers the wanted one."""
    return min((key for key in available if key.covers(wanted)), key=lambda key: key.cost, default=None)


def powers_of_two(first: int, last: int) -> tuple[int, ...]:
    """Return ``first, 2 * first, …``, ending in exactly ``last``."""
    sizes: list[int] = []
    while first < last:
        sizes.append(first)
        first *= 2
    return (*sizes, last)


def _round_up(sizes: tuple[int, ...], value: int) -> int:
    return sizes[bisect_left(sizes, value)]


@frozen
class Buckets:
    """All shapes of one engine.

    Args:
        rows: how many sequences decode together, ascending.
        chunks: how many prompt tokens make a chunk, ascending.
        pages: widths of the page table, ascending; the last holds the longest sequence.
    """

    rows: tuple[int, ...] = field()
    chunks: tuple[int, ...] = field()
    pages: tuple[int, ...] = field()

    @classmethod
    def of(cls, *, max_num_seqs: int, max_chunk: int, max_pages: int) -> "Buckets":
        """Return powers of two up to the limits."""
        return cls(
            powers_of_two(1, max_num_seqs),
            powers_of_two(min(16, max_chunk), max_chunk) if max_chunk > 1 else (2,),
            powers_of_two(min(_FIRST_PAGES, max_pages), max_pages),
        )

    def decode(self, rows: int, pages: int) -> ProgramKey:
        """Return the shape for this many decoding sequences, the longest of them of this many pages."""
        return ProgramKey(_round_up(self.rows, rows), 1, _round_up(self.pages, pages))

    def chunk(self, tokens: int, pages: int, *, scored: bool) -> ProgramKey:
        """Return the shape for a chunk of one prompt that ends in this page."""
        return ProgramKey(1, _round_up(self.chunks, tokens), _round_up(self.pages, pages), scored)

    def at_start(self, chunks: Iterable[int]) -> list[ProgramKey]:
        """Return what is compiled before the first request: short contexts, for any batch and these chunks."""
        return self._rung(self.pages[0], sorted({_round_up(self.chunks, size) for size in chunks}))

    def ladder(self, chunks: Iterable[int]) -> list[ProgramKey]:
        """Return what is compiled next: the same for longer and longer contexts, up to the longest."""
        sizes = sorted({_round_up(self.chunks, size) for size in chunks})
        rungs = {*self.pages[:: _PAGES_STEP // 2], self.pages[-1]} - {self.pages[0]}
        return [key for pages in sorted(rungs) for key in self._rung(pages, sizes)]

    def everything(self) -> list[ProgramKey]:
        """Return all shapes but the scored ones."""
        return [key for pages in self.pages for key in self._all_at(pages)]

    def _rung(self, pages: int, chunks: list[int]) -> list[ProgramKey]:
        rows = sorted({1, _round_up(self.rows, min(8, self.rows[-1])), self.rows[-1]})
        return [ProgramKey(n, 1, pages) for n in rows] + [ProgramKey(1, n, pages) for n in chunks]

    def _all_at(self, pages: int) -> list[ProgramKey]:
        return [ProgramKey(n, 1, pages) for n in self.rows] + [ProgramKey(1, n, pages) for n in self.chunks]
