"""What comes next for a cell: system messages first, then what was stashed and given back, then mail, then idleness."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import trio

from ._mailbox import EMPTY, Mailbox
from ._signals import Signal

__all__ = ["Inbox"]


class Inbox:
    """Two lanes with one waiting place. The lane of system messages is unbounded and never loses anything."""

    __slots__ = ("_idle_since", "_idle_timeout", "_mailbox", "front", "is_timed", "signals")

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        # Lists, because they are short and an empty deque costs ten times as much in each idle actor.
        self.signals: list[Signal] = []
        # The next item is the last of the list.
        self.front: list[Any] = []
        self._idle_since = 0.0
        self.is_timed: bool = False
        self._idle_timeout = math.inf

    def __len__(self) -> int:
        return len(self.front) + len(self._mailbox)

    def signal(self, signal: Signal) -> None:
        """Queue a system message, and wake the cell if it is parked."""
        self.signals.append(signal)
        # Trio has no select (python-trio/trio#242): a parked cell waits for mail only, so it is sent a nothing.
        self._mailbox.wake()

    def drop_signals(self, stale: Callable[[Signal], bool]) -> None:
        """Forget the system messages that are ``stale``."""
        self.signals[:] = [signal for signal in self.signals if not stale(signal)]

    def give_back(self, items: Sequence[Any]) -> None:
        """Put items in front of the mail, in their order."""
        self.front.extend(reversed(items))
        # A task of the actor may do so while the actor itself is parked.
        self._mailbox.wake()

    async def park(self) -> bool:
        """Wait for mail or a system message (false), or for the idle timeout (true)."""
        item: Any = EMPTY
        is_idle = False
        if self.is_timed:
            with trio.CancelScope(deadline=self._idle_since + self._idle_timeout) as scope:
                item = await self._mailbox.park()
            is_idle = scope.cancelled_caught
        else:
            item = await self._mailbox.park()
        # Not handled at once: a system message that came in the same turn goes first, and so does what was given back.
        if item is not EMPTY:
            self.front.insert(0, item)
        if is_idle and not self.signals and not self.front:
            self.not_idle()
            return True
        return False

    def set_idle_timeout(self, seconds: float | None) -> None:
        """Be idle after so long without mail, counted from now; ``None``: never."""
        self.is_timed = seconds is not None
        self._idle_timeout = math.inf if seconds is None else seconds
        self.not_idle()
        self._mailbox.wake()

    def not_idle(self) -> None:
        """Let the idle timeout count from now."""
        self._idle_since = trio.current_time()

    def close(self) -> None:
        """Make dead letters of all mail."""
        while self.front:
            self._mailbox.lose(self.front.pop(), "the actor is stopped")
        self._mailbox.close()
        self.signals.clear()
