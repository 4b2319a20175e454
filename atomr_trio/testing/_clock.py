"""Time that moves when the test says so."""

import math

import trio
import trio.testing

__all__ = ["ManualClock"]


class ManualClock(trio.abc.Clock):
    """Virtual time that stands still but for ``advance``: ``trio.run(main, clock=ManualClock())``.

    It starts at 0. Use ``trio.testing.MockClock(autojump_threshold=0)`` where time should jump ahead by itself.
    """

    def __init__(self) -> None:
        self._clock = trio.testing.MockClock()

    def start_clock(self) -> None:
        """Trio calls this at the beginning of a run."""
        self._clock.start_clock()

    def current_time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._clock.current_time()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Trio calls this to know how long, in real seconds, it may wait for I/O."""
        return self._clock.deadline_to_sleep_time(deadline)

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass, and everything that falls due in them run, in its order.

        The clock goes from one deadline to the next and stops at each until every other task is blocked, so a task
        that sleeps again and again is woken each time. Threads and sockets are not waited for.

        Args:
            seconds: how far to go, at least 0.

        Raises:
            ValueError: time runs forward only.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"cannot advance by {seconds!r} seconds")
        target = self.current_time() + seconds
        await trio.testing.wait_all_tasks_blocked()
        while (due := self.current_time() + self._next_deadline()) <= target:
            self._clock.jump(max(0.0, due - self.current_time()))
            await trio.testing.wait_all_tasks_blocked()
        self._clock.jump(max(0.0, target - self.current_time()))
        await trio.testing.wait_all_tasks_blocked()

    def jump(self, seconds: float) -> None:
        """Let ``seconds`` pass at once: everything due in them runs afterwards, at the later time."""
        self._clock.jump(seconds)

    def _next_deadline(self) -> float:
        return trio.lowlevel.current_statistics().seconds_to_next_deadline
