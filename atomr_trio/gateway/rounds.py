"""One task that writes for all streams that have news: a wake-up for each round, not for each stream."""

from collections.abc import Callable

import trio
from attrs import define, field

__all__ = ["Rounds"]


@define(eq=False)
class Rounds:
    """Calls back in the next pass of the scheduler, all callers of one pass in one go.

    What a runner says in a pass is written in the round after it: pieces of one stream that came together leave
    together, and the first one waits for nobody.
    """

    _due: list[Callable[[], None]] = field(init=False, factory=list[Callable[[], None]])
    _news: trio.Event = field(init=False, factory=trio.Event)

    def add(self, step: Callable[[], None]) -> None:
        """Have ``step`` called in the next round. It must not raise: its failure would be everybody's."""
        self._due.append(step)
        self._news.set()

    async def run(self) -> None:
        """Make the rounds, until cancelled."""
        while True:
            await self._news.wait()
            self._news = trio.Event()
            due, self._due = self._due, []
            for step in due:
                step()
