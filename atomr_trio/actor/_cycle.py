"""Questions that go in a circle: A asks B, whose handler asks A, which waits for B. Refused instead of timing out."""

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import trio

from ._errors import AskCycle

if TYPE_CHECKING:
    from ._cell import Cell

__all__ = ["RUNNING", "asking_cell", "refuse_cycle"]

RUNNING: "ContextVar[Cell[Any] | None]" = ContextVar("atomr_trio_cell", default=None)


def asking_cell() -> "Cell[Any] | None":
    """Return the actor that does nothing else while the current task waits; ``None`` if there is none."""
    cell = RUNNING.get()
    # The tasks that an actor spawns inherit the variable, but leave its handler free.
    return cell if cell is not None and cell.task is trio.lowlevel.current_task() else None


def refuse_cycle(asker: "Cell[Any]", target: "Cell[Any]") -> None:
    """Raise ``AskCycle`` if ``target`` waits, over however many questions, for ``asker`` itself."""
    chain = [target.path]
    waiting: Cell[Any] | None = asker
    while waiting is not None:
        chain.append(waiting.path)
        if waiting is target:
            raise AskCycle(target.path, tuple(reversed(chain)))
        question = waiting.hand.asking
        waiting = question.asker if question is not None and question.is_open else None
