"""What comes next for a cell: system messages first, then what was stashed and given back, then mail, then idleness."""

import math
from collections import deque
from collections.abc import Callable
from typing import Any

import trio

from ._mailbox import EMPTY, Mailbox
from ._signals import Signal

__all__ = ["IDLE", "Inbox"]


class _Idle:
    __slots__ = ()


IDLE = _Idle()
"""What ``next`` returns when nothing has come for the idle timeout."""


class Inbox:
    """Two lanes with one waiting place. The lane of system messages is unbounded and never loses anything."""

    __slots__ = ("_front", "_idle_since", "_parked", "_path", "idle_timeout", "mailbox", "signals")

    def __init__(self, path: str, mailbox: Mailbox) -> None:
        self._path = path
        self.mailbox = mailbox
        self.signals: deque[Signal] = deque()
        self._front: deque[Any] = deque()
        self._parked: trio.CancelScope | None = None
        self._idle_since = 0.0
        self.idle_timeout = math.inf

    def __len__(self) -> int:
        return len(self._front) + len(self.mailbox)

    def signal(self, signal: Signal) -> None:
        """Queue a system message, and wake the cell if it is parked."""
        self.signals.append(signal)
        # Trio has no select (python-trio/trio#242). A parked cell waits for mail inside a scope of its own; cancelling
        # it loses nothing, because `receive` is atomic under cancellation.
        if self._parked is not None:
            self._parked.cancel(reason=f"system message for {self._path}")

    def drop_signals(self, stale: Callable[[Signal], bool]) -> None:
        """Forget the system messages that are ``stale``."""
        self.signals = deque(signal for signal in self.signals if not stale(signal))

    def give_back(self, items: "deque[Any]") -> None:
        """Put items in front of the mail, in their order."""
        self._front.extendleft(reversed(items))

    def next_nowait(self) -> Any:
        """Return the next item of mail, or ``EMPTY``."""
        return self._front.popleft() if self._front else self.mailbox.get_nowait()

    async def park(self) -> Any:
        """Wait for mail (returned), a system message (``EMPTY``) or the idle timeout (``IDLE``)."""
        item: Any = EMPTY
        self._parked = scope = trio.CancelScope(deadline=self._idle_since + self.idle_timeout)
        with scope:
            item = await self.mailbox.get()
        self._parked = None
        if item is EMPTY and not self.signals:
            self.not_idle()
            return IDLE
        return item

    def not_idle(self) -> None:
        """Let the idle timeout count from now."""
        self._idle_since = trio.current_time()

    def close(self) -> None:
        """Make dead letters of all mail."""
        while self._front:
            self.mailbox.lose(self._front.popleft(), "the actor is stopped")
        self.mailbox.close()
        self.signals.clear()
