"""A planned step as rows of programs. Pure."""

from collections.abc import Callable, Iterable, Mapping

from attrs import evolve, frozen

from .blocks import pages_for
from .buckets import POOLED, Kind, ProgramKey
from .packing import Row, Rows
from .step_plan import Chunk, StepPlan

__all__ = ["Prefill", "Work", "last_page", "prefills_of"]


@frozen
class Prefill:
    """Chunks of prompts that one program computes.

    Args:
        chunks: which.
        rows: one for each of them.
        kind: of the program: ``scored``, where their own tokens get log probabilities, has only one of them.
    """

    chunks: tuple[Chunk, ...]
    rows: list[Row]
    kind: Kind = "prefill"

    @property
    def draws(self) -> bool:
        """Somebody's next token is drawn after it."""
        return any(chunk.draws for chunk in self.chunks)

    @property
    def scored(self) -> bool:
        """It computes log probabilities of its own tokens."""
        return self.kind == "scored"

    @property
    def pooled(self) -> bool:
        """It computes parts of embeddings."""
        return self.kind in POOLED.values()

    @property
    def drawing(self) -> Rows:
        """The rows; ``None`` where nothing is drawn."""
        return [row if chunk.draws else None for row, chunk in zip(self.rows, self.chunks, strict=True)]

    @property
    def tokens(self) -> int:
        """Tokens of its longest row."""
        return max(row.count for row in self.rows)


@frozen
class Work:
    """A step that can be started.

    Args:
        plan: what it computes: the plan that was asked for, or a part of it.
        decodes: a row for each of ``plan.decodes``.
        prefills: the programs for ``plan.chunks``.
    """

    plan: StepPlan
    decodes: list[Row]
    prefills: list[Prefill]

    def only(self, *, decodes: bool, prefill: Callable[[Prefill], bool]) -> "Work":
        """Return a part of it."""
        prefills = [one for one in self.prefills if prefill(one)]
        chunks = tuple(chunk for one in prefills for chunk in one.chunks)
        plan = evolve(self.plan, decodes=self.plan.decodes if decodes else (), chunks=chunks)
        return Work(plan, self.decodes if decodes else [], prefills)


def prefills_of(
    chunks: Iterable[Chunk], scored: Callable[[Chunk], bool], groups: Mapping[Kind, ProgramKey], page_size: int
) -> list[Prefill]:
    """Say which chunks share a program: a few rows of a prompt take a device as long as a few more.

    Args:
        chunks: of a step.
        scored: those whose tokens get log probabilities are computed alone.
        groups: by kind the shape for several; what does not fit is computed alone, and so is what has none.
        page_size: tokens a page.
    """
    found: list[Prefill] = []
    small: dict[Kind, list[Chunk]] = {}
    for chunk in chunks:
        kind = _kind(chunk, scored)
        if kind != "scored" and kind in groups and _fits(chunk, groups[kind], page_size):
            small.setdefault(kind, []).append(chunk)
        else:
            found.append(Prefill((chunk,), [_row(chunk)], kind))
    return found + [prefill for kind in small for prefill in _together(small[kind], kind, groups[kind].rows)]


def _together(chunks: list[Chunk], kind: Kind, rows: int) -> list[Prefill]:
    found: list[Prefill] = []
    # A program that is less than half full takes longer than one for each row.
    while 2 * len(chunks) > rows > 1:
        members, chunks = chunks[:rows], chunks[rows:]
        found.append(Prefill(tuple(members), [_row(chunk) for chunk in members], kind))
    return found + [Prefill((chunk,), [_row(chunk)], kind) for chunk in chunks]


def _kind(chunk: Chunk, scored: Callable[[Chunk], bool]) -> Kind:
    if chunk.pooled is not None:
        return POOLED[chunk.pooled]
    return "scored" if scored(chunk) else "prefill"


def last_page(rows: Iterable[Row], page_size: int) -> int:
    """Return how many pages the longest of these rows has after the step."""
    return pages_for(max(row.end for row in rows), page_size)


def _fits(chunk: Chunk, group: ProgramKey, page_size: int) -> bool:
    return chunk.length <= group.chunk and pages_for(chunk.start + chunk.length, page_size) <= group.pages


def _row(chunk: Chunk) -> Row:
    return Row(chunk.sequence, chunk.start, chunk.length)
