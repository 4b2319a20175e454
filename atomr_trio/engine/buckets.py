"""The static shapes that step programs are compiled for. Pure.

A program's cost grows with its shape, and each takes seconds to compile: so a few are compiled before the engine is
ready, a ladder of longer contexts while nobody asks for anything, and the rest when they are first wanted (while a
larger one serves) or about to be.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Literal

from attrs import evolve, field, frozen

from .settings import Pooling

__all__ = ["POOLED", "Buckets", "Kind", "ProgramKey", "best_cover", "powers_of_two"]

_FIRST_PAGES = 16
_FIRST_SPAN = 8
_FEW_ROWS = 8
_GROUP = 4

_FIRST_ENTRIES = 64
_ENTRIES_STEP = 4

_GATHER = 4
"""How much dearer a page is that has to be gathered."""

Kind = Literal[
    "decode",
    "view",
    "decodes",
    "views",
    "fill",
    "prefill",
    "sample",
    "scored",
    "ends",
    "sums",
    "mask",
    "edit",
    "report",
    "keep",
    "restore",
]

POOLED: dict[Pooling, Kind] = {"last": "ends", "mean": "sums"}
"""The programs for chunks of prompts that embeddings are made of."""

_LOOPS: dict[Kind, Kind] = {"decode": "decodes", "view": "views"}
_ONCE: dict[Kind, Kind] = {loop: once for once, loop in _LOOPS.items()}


@frozen(order=True)
class ProgramKey:
    """The shape of a program.

    Args:
        kind: ``decode`` (one token a row), ``view`` (the same, with a view of the cache, which ``fill`` fills),
            ``decodes`` and ``views`` (the same several times, each time with the token that was drawn before),
            ``prefill`` (a chunk of each prompt), ``scored`` (the same, and the log probability of each of its next
            tokens), ``ends`` and ``sums`` (the same, and instead of logits the model's output itself: after each row's
            last token, or the sum of all), or ``sample`` (draws from what the others computed). ``mask`` and ``edit``
            change logits before the draw, ``report`` adds the best tokens to what was drawn. ``keep`` copies pages to
            the host, ``restore`` back.
        rows: sequences, ``B``, or pages that are copied.
        chunk: tokens a row, ``C``, also where they are drawn one after the other; for ``edit``, changed logits a row.
        pages: width of the page table, ``W``.
    """

    kind: Kind
    rows: int
    chunk: int = 1
    pages: int = 0

    def covers(self, wanted: "ProgramKey") -> bool:
        """A step of shape ``wanted`` can run in this program, padded."""
        if self.is_loop:
            # Steps one by one are there anyway, and better than a loop that is too large.
            return self == wanted
        sizes = self.rows >= wanted.rows and self.chunk >= wanted.chunk and self.pages >= wanted.pages
        # Gathering pages is slow where there are views, but does the same.
        return sizes and (self.kind == wanted.kind or (self.kind, wanted.kind) == ("decode", "view"))

    @property
    def is_loop(self) -> bool:
        """It decodes several tokens a row."""
        return self.kind in _ONCE

    @property
    def once(self) -> "ProgramKey":
        """The shape of one turn of a loop."""
        return evolve(self, kind=_ONCE[self.kind], chunk=1) if self.is_loop else self

    @property
    def reads_view(self) -> bool:
        """It reads a view of the cache, which has to be filled."""
        return self.once.kind == "view"

    @property
    def cost(self) -> int:
        """What a step in this program costs, in no unit: products per row, and pages read per row."""
        return self.rows * (64 * self.chunk + (1 if self.reads_view else _GATHER) * self.pages)


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


def _halved_octaves(first: int, last: int) -> tuple[int, ...]:
    """Return ``first, 3/2 first, 2 first, 3 first, …``, ending in exactly ``last``."""
    octaves = powers_of_two(first, last)
    halves = [size // 2 * 3 for size in octaves[:-1] if size > 1]
    return tuple(sorted({*octaves, *(size for size in halves if size < last)}))


def _entries_up_to(most: int) -> tuple[int, ...]:
    sizes = [_FIRST_ENTRIES]
    while sizes[-1] < most:
        sizes.append(sizes[-1] * _ENTRIES_STEP)
    return tuple(sizes)


def _round_up(sizes: tuple[int, ...], value: int) -> int:
    return sizes[bisect_left(sizes, value)]


@frozen
class Buckets:
    """All shapes of one engine.

    Args:
        rows: how many sequences decode together, ascending.
        chunks: how many prompt tokens make a chunk, ascending.
        pages: widths of the page table, ascending; the last holds the longest sequence.
        entries: how many logits of a row can be changed, ascending.
        spans: pages that a row of a view has, ascending; the last holds the longest sequence.
        view_pages: most pages of a whole view; 0: there are no views.
        steps: tokens a row of a loop; 1: there are no loops.
    """

    rows: tuple[int, ...] = field()
    chunks: tuple[int, ...] = field()
    pages: tuple[int, ...] = field()
    entries: tuple[int, ...] = (_FIRST_ENTRIES,)
    spans: tuple[int, ...] = ()
    view_pages: int = 0
    steps: int = 1

    @classmethod
    def of(
        cls,
        *,
        max_num_seqs: int,
        max_chunk: int,
        max_pages: int,
        max_entries: int = _FIRST_ENTRIES,
        view_pages: int = 0,
        steps: int = 1,
        one_width: bool = False,
    ) -> "Buckets":
        """Return powers of two up to the limits, and wider steps for the cheap programs that change logits.

        With ``one_width`` all page tables are as wide as can be: for attention that takes no longer for it.
        """
        return cls(
            powers_of_two(1, max_num_seqs),
            powers_of_two(min(16, max_chunk), max_chunk),
            (max_pages,) if one_width else powers_of_two(min(_FIRST_PAGES, max_pages), max_pages),
            _entries_up_to(max_entries),
            _halved_octaves(min(_FIRST_SPAN, max_pages), max_pages),
            view_pages,
            steps,
        )

    def decode(self, rows: int, pages: int) -> ProgramKey:
        """Return the shape for this many decoding sequences, the longest of them of this many pages.

        A view, unless there are none, or this one would be larger than they may be.
        """
        size = _round_up(self.rows, rows)
        if self.view_pages:
            span = _round_up(self.spans, pages)
            if size * span <= self.view_pages:
                return ProgramKey("view", size, 1, span)
        return ProgramKey("decode", size, 1, _round_up(self.pages, pages))

    def loops(self, keys: Iterable[ProgramKey]) -> list[ProgramKey]:
        """Return the shapes that do several times what those of these that decode do once."""
        once = [key for key in keys if key.kind in _LOOPS] if self.steps > 1 else []
        return [evolve(key, kind=_LOOPS[key.kind], chunk=self.steps) for key in once]

    def chunk(self, tokens: int, pages: int, *, rows: int = 1, kind: Kind = "prefill") -> ProgramKey:
        """Return the shape for chunks of so many prompts, the longest of which ends in this page."""
        rows = 1 if rows == 1 else self.group.rows
        return ProgramKey(kind, rows, _round_up(self.chunks, tokens), _round_up(self.pages, pages))

    @property
    def group(self) -> ProgramKey:
        """The shape for short chunks of several prompts."""
        return ProgramKey("prefill", min(_GROUP, self.rows[-1]), self.chunks[0], self.pages[0])

    def sample(self, rows: int) -> ProgramKey:
        """Return the shape that draws for this many rows."""
        return ProgramKey("sample", _round_up(self.rows, rows))

    def edit(self, rows: int, entries: int) -> ProgramKey:
        """Return the shape that changes up to this many logits of each of this many rows."""
        return ProgramKey("edit", _round_up(self.rows, rows), _round_up(self.entries, entries))

    def longer(self, key: ProgramKey) -> list[ProgramKey]:
        """Return the shape that changes more logits than this one, if there is one."""
        return [evolve(key, chunk=more) for more in self.entries[bisect_right(self.entries, key.chunk) :][:1]]

    def wider(self, key: ProgramKey) -> list[ProgramKey]:
        """Return the shapes for the next longer contexts, if there are any: what a growing sequence needs next."""
        if key.is_loop:
            once = self.wider(key.once)
            return [*once, *self.loops(once)]
        if key.kind == "view":
            spans = self.spans[bisect_right(self.spans, key.pages) :][:1]
            return [wider for pages in spans for wider in self.decoding(key.rows, pages)]
        pages = self.pages[bisect_right(self.pages, key.pages) :][:1]
        return [evolve(key, pages=wider) for wider in pages]

    def decoding(self, rows: int, pages: int) -> list[ProgramKey]:
        """Return all that decoding in this shape takes: where there is a view, it has to be filled."""
        key = self.decode(rows, pages)
        return [*self.before(key), key]

    def before(self, key: ProgramKey) -> list[ProgramKey]:
        """Return what has to be run before this one can be."""
        return [evolve(key.once, kind="fill")] if key.reads_view else []

    def at_start(self, chunks: Iterable[int]) -> list[ProgramKey]:
        """Return what is compiled before the first request: short contexts, one stream and some, these chunks."""
        few = [rows for rows in self._main_rows if rows <= _FEW_ROWS]
        short = (self.spans or self.pages)[0] if self.view_pages else self.pages[0]
        decodes = [key for rows in few for key in self.decoding(rows, short)]
        return [*self._prefills(self.pages[0], chunks), *decodes, *map(self.sample, few)]

    def ladder(self, chunks: Iterable[int]) -> list[ProgramKey]:
        """Return what is compiled next: full batches, then longer and longer contexts, up to the longest."""
        sizes = list(chunks)
        widths = self.spans if self.view_pages else self.pages
        keys = [*map(self.sample, sorted({self.group.rows, *self._main_rows})), self.group]
        for pages in sorted({*widths[:: len(widths) // 5 or 1], *self.pages[::2], self.pages[-1]}):
            decodes = [key for rows in self._main_rows for key in self.decoding(rows, pages)]
            keys += [*decodes, *self._prefills(_round_up(self.pages, pages), sizes), *self.loops(decodes)]
        keys.append(self._stand_in)
        keys += self._extras(self._main_rows)
        done = set(self.at_start(sizes))
        return [key for key in dict.fromkeys(keys) if key not in done]

    def pooled(self, keys: Iterable[ProgramKey], pooling: Pooling | None) -> list[ProgramKey]:
        """Return the shapes that embed the prompts which those of these compute that prefill."""
        return [] if pooling is None else [evolve(key, kind=POOLED[pooling]) for key in keys if key.kind == "prefill"]

    def everything(self) -> list[ProgramKey]:
        """Return all shapes but the scored, the masked and the pooled ones."""
        widths = sorted({*self.pages, *(self.spans if self.view_pages else ())})
        decodes = [key for pages in widths for rows in self.rows for key in self.decoding(rows, pages)]
        prefills = [key for pages in self.pages for key in self._prefills(pages, self.chunks)]
        forwards = dict.fromkeys([*prefills, self.group, *decodes, *self.loops(decodes), self._stand_in])
        return [*forwards, *map(self.sample, self.rows), *self._extras(self.rows)]

    @property
    def _stand_in(self) -> ProgramKey:
        """The shape that decodes whatever has no program of its own yet."""
        return ProgramKey("decode", self.rows[-1], 1, self.pages[-1])

    @property
    def _main_rows(self) -> list[int]:
        return sorted({1, _round_up(self.rows, min(_FEW_ROWS, self.rows[-1])), self.rows[-1]})

    def _extras(self, rows: Iterable[int]) -> list[ProgramKey]:
        """What few requests ask for: reports and, from short to long, edits."""
        sizes = list(rows)
        reports = [ProgramKey("report", size) for size in sizes]
        return reports + [ProgramKey("edit", size, entries) for entries in self.entries for size in sizes]

    def _prefills(self, pages: int, chunks: Iterable[int]) -> list[ProgramKey]:
        sizes = sorted({_round_up(self.chunks, size) for size in chunks})
        return [ProgramKey("prefill", 1, size, pages) for size in sizes]
