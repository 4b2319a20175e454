"""A planned step as rows of programs. Pure."""

from collections.abc import Callable, Iterable

from attrs import evolve, frozen

from .blocks import pages_for
from .buckets import ProgramKey
from .packing import Row, Rows
from .step_plan import Chunk, StepPlan

__all__ = ["Prefill", "Work", "last_page", "prefills_of"]


@frozen
class Prefill:
    """Chunks of prompts that one program computes.

    Args:
        chunks: which.
        rows: one for each of them.
        scored: their own tokens get log probabilities; then there is only one.
    """

    chunks: tuple[Chunk, ...]
    rows: list[Row]
    scored: bool = False

    @property
    def completes(self) -> bool:
        """Somebody's next token is drawn after it."""
        return any(chunk.completes for chunk in self.chunks)

    @property
    def drawing(self) -> Rows:
        """The rows; ``None`` where nothing is drawn."""
        return [row if chunk.completes else None for row, chunk in zip(self.rows, self.chunks, strict=True)]

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
    chunks: Iterable[Chunk], scored: Callable[[Chunk], bool], group: ProgramKey | None, page_size: int
) -> list[Prefill]:
    """Say which chunks share a program: a few rows of a prompt take a device as long as a few more.

    Args:
        chunks: of a step.
        scored: those whose tokens get log probabilities are computed alone.
        group: the shape for several; what does not fit is computed alone. ``None``: everything is.
        page_size: tokens a page.
    """
    found: list[Prefill] = []
    small: list[Chunk] = []
    for chunk in chunks:
        if group is not None and not scored(chunk) and _fits(chunk, group, page_size):
            small.append(chunk)
        else:
            found.append(Prefill((chunk,), [_row(chunk)], scored(chunk)))
    # A program that is less than half full takes longer than one for each row.
    while group is not None and 2 * len(small) > group.rows > 1:
        members, small = tuple(small[: group.rows]), small[group.rows :]
        found.append(Prefill(members, [_row(chunk) for chunk in members]))
    return found + [Prefill((chunk,), [_row(chunk)]) for chunk in small]


def last_page(rows: Iterable[Row], page_size: int) -> int:
    """Return how many pages the longest of these rows has after the step."""
    return pages_for(max(row.end for row in rows), page_size)


def _fits(chunk: Chunk, group: ProgramKey, page_size: int) -> bool:
    return chunk.length <= group.chunk and pages_for(chunk.start + chunk.length, page_size) <= group.pages


def _row(chunk: Chunk) -> Row:
    return Row(chunk.sequence, chunk.start, chunk.length)
