"""Who is told of a death: the two ends of every watch."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ._ref import ActorRef, cell_of
from ._signals import Terminated

if TYPE_CHECKING:
    from ._cell import Cell

__all__ = ["Watches"]


class Watches:
    """The watches of one cell, as watcher and as watched."""

    __slots__ = ("_afterwards", "_cell", "_watchers", "_watching")

    def __init__(self, cell: "Cell[Any]") -> None:
        self._cell = cell
        self._watchers: dict[Cell[Any], None] = {}
        # With each the death pact: whether its end is a failure of this one.
        self._watching: dict[Cell[Any], bool] = {}
        self._afterwards: dict[object, Callable[[], None]] = {}

    def watch(self, ref: ActorRef[Any], *, death_pact: bool = False) -> None:
        """Get a ``Terminated`` once ``ref`` is gone."""
        target = cell_of(ref)
        self._watching[target] = death_pact
        if target.terminated.is_set():
            self._cell.signal(Terminated(ref, target.end.reason, target.end.failure))
        else:
            target.watches._watchers[self._cell] = None

    def unwatch(self, ref: ActorRef[Any]) -> None:
        """Forget ``ref``; a queued ``Terminated`` is dropped when its turn comes."""
        target = cell_of(ref)
        self._watching.pop(target, None)
        target.watches._watchers.pop(self._cell, None)

    def accept(self, notice: Terminated) -> bool | None:
        """Take a ``Terminated`` off the queue and return its death pact; ``None`` if it is not wanted any more."""
        return self._watching.pop(cell_of(notice.ref), None)

    def call_afterwards(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback``, which must not raise, once the cell is gone; at once if it is. Returns how to undo it."""
        key = object()
        if self._cell.terminated.is_set():
            callback()
        else:
            self._afterwards[key] = callback

        def undo() -> None:
            self._afterwards.pop(key, None)

        return undo

    def run_afterwards(self) -> None:
        """The cell is gone: call those who asked for it."""
        while self._afterwards:
            self._afterwards.popitem()[1]()

    def notify(self) -> None:
        """The cell is gone: tell its watchers, and forget whom it watched."""
        notice = Terminated(self._cell.ref, self._cell.end.reason, self._cell.end.failure)
        for watcher in self._watchers:
            watcher.signal(notice)
        for target in self._watching:
            target.watches._watchers.pop(self._cell, None)
        self._watchers.clear()
        self._watching.clear()
