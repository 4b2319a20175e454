"""Keyed timers: they belong to an incarnation, and a stale one is never delivered."""

from collections.abc import Callable, Hashable
from typing import Any

import trio
from attrs import frozen

__all__ = ["TimerFired", "Timers"]


@frozen
class TimerFired:
    """A timer's message on its way; delivered only if ``generation`` is still the key's."""

    key: Hashable
    generation: int
    message: Any


class Timers:
    """The timers of one incarnation. Times are seconds on Trio's clock.

    Starting a key again, or cancelling it, invalidates what the old timer has already fired. A periodic timer whose
    last message was not handled yet skips a beat: at most one message per key waits.

    Args:
        spawn: runs a task in the incarnation.
        fire: takes a ``TimerFired``.
    """

    def __init__(self, spawn: Callable[..., None], fire: Callable[[TimerFired], None]) -> None:
        self._spawn = spawn
        self._fire = fire
        self._scopes: dict[Hashable, trio.CancelScope] = {}
        self._generations: dict[Hashable, int] = {}
        self._waiting: set[Hashable] = set()
        self._count = 0

    def start_once(self, key: Hashable, message: Any, delay: float) -> None:
        """Deliver ``message`` after ``delay``."""
        self._start(key, message, delay, None, fixed_rate=False)

    def start_fixed_delay(self, key: Hashable, message: Any, interval: float) -> None:
        """Deliver ``message`` each ``interval`` after the one before was fired."""
        self._start(key, message, interval, interval, fixed_rate=False)

    def start_fixed_rate(self, key: Hashable, message: Any, interval: float) -> None:
        """Deliver ``message`` at multiples of ``interval`` from now; beats that were missed are skipped."""
        self._start(key, message, interval, interval, fixed_rate=True)

    def cancel(self, key: Hashable) -> None:
        """Stop a timer, and forget what it has fired. Does nothing for an unknown key."""
        self._generations.pop(key, None)
        self._waiting.discard(key)
        scope = self._scopes.pop(key, None)
        if scope is not None:
            scope.cancel(reason=f"timer {key!r} was cancelled")

    def is_active(self, key: Hashable) -> bool:
        """Whether the timer will fire, or has fired and its message waits."""
        return key in self._generations

    def accept(self, fired: TimerFired) -> bool:
        """Take a fired timer off the queue; false if it is stale."""
        if self._generations.get(fired.key) != fired.generation:
            return False
        self._waiting.discard(fired.key)
        if fired.key not in self._scopes:
            del self._generations[fired.key]
        return True

    def _start(self, key: Hashable, message: Any, delay: float, interval: float | None, *, fixed_rate: bool) -> None:
        self.cancel(key)
        self._count += 1
        self._generations[key] = self._count
        self._scopes[key] = scope = trio.CancelScope()
        fired = TimerFired(key, self._count, message)
        self._spawn(self._run, scope, fired, trio.current_time() + delay, interval, fixed_rate)

    async def _run(
        self, scope: trio.CancelScope, fired: TimerFired, due: float, interval: float | None, fixed_rate: bool
    ) -> None:
        with scope:
            while True:
                await trio.sleep_until(due)
                if interval is None:
                    del self._scopes[fired.key]
                self._deliver(fired)
                if interval is None:
                    return
                due = due + interval if fixed_rate else trio.current_time() + interval
                while fixed_rate and due <= trio.current_time():
                    due += interval

    def _deliver(self, fired: TimerFired) -> None:
        if fired.key not in self._waiting:
            self._waiting.add(fired.key)
            self._fire(fired)
