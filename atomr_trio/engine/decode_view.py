"""The view that decoding rows read instead of pages: who has which row of it, and how it is kept filled.

See `attention.view` for what a view is. This is its book-keeping, on the host.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from attrs import define, field, frozen

from .attention import View
from .buckets import ProgramKey
from .kv_cache import KV
from .packing import Ints, Row
from .sequence import Sequence, SequenceState

__all__ = ["DecodeView", "ViewRows"]


@frozen
class _Held:
    sequence: Sequence
    life: int
    computed: int


@define
class ViewRows:
    """Which sequence each row holds, and how much of it. Pure: knows numbers, not arrays.

    Args:
        size: how many rows there are.
    """

    size: int
    _held: dict[int, _Held] = field(init=False, factory=dict[int, _Held])

    def place(self, rows: Iterable[Row]) -> tuple[list[Row | None], list[int]]:
        """Give each of these decoding rows a place, the one it has if it has one, and take the others' away if need be.

        Args:
            rows: at most ``size``, each of another sequence.

        Returns:
            The rows in the order of the view, ``None`` where nobody is; and which of them have to be filled first.
        """
        placed: list[Row | None] = [None] * self.size
        new: list[Row] = []
        at_home = {held.sequence: index for index, held in self._held.items()}
        for row in rows:
            index = at_home.get(row.sequence)
            if index is not None and self._held[index] == _Held(row.sequence, row.sequence.life, row.start):
                placed[index] = row
            else:
                new.append(row)
        vacant = sorted((index for index in range(self.size) if placed[index] is None), key=self._worth)
        filled = vacant[: len(new)]
        for index, row in zip(filled, new, strict=True):
            placed[index] = row
        for row in new:
            self._held.pop(at_home.get(row.sequence, -1), None)
        for index, row in enumerate(placed):
            if row is not None:
                self._held[index] = _Held(row.sequence, row.sequence.life, row.end)
        return placed, filled

    def _worth(self, index: int) -> int:
        """Rows of nobody go first; then those of sequences that are not running any more."""
        held = self._held.get(index)
        if held is None:
            return 0
        gone = held.sequence.state is not SequenceState.RUNNING or held.life != held.sequence.life
        return 1 if gone else 2


@define
class DecodeView:
    """A view on the device and who has which row of it.

    Args:
        key: its shape; ``rows`` and ``pages`` count.
        arrays: what it holds.
    """

    key: ProgramKey
    arrays: View
    _rows: ViewRows = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._rows = ViewRows(self.key.rows)

    def arrange(self, rows: list[Row], kv: KV, fill: Callable[[KV, View, Ints], Any]) -> list[Row | None]:
        """Place rows, and dispatch the filling of those that are new.

        Args:
            rows: of a decoding step.
            kv: the pages.
            fill: the program for this shape.

        Returns:
            The rows in the order of the view.
        """
        placed, missing = self._rows.place(rows)
        for index in missing:
            row = placed[index]
            if row is not None and row.start:
                self.arrays = fill(kv, self.arrays, _packed_fill(self.key, index, row))
        return placed


def _packed_fill(key: ProgramKey, index: int, row: Row) -> Ints:
    packed = np.zeros(1 + key.pages, np.int32)
    packed[0] = index
    pages = row.sequence.pages[: key.pages]
    packed[1 : 1 + len(pages)] = pages
    return packed
