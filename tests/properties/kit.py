"""What the property suites share: runs on virtual time, and a look at what a run has left behind."""

import trio
import trio.testing

settle = trio.testing.wait_all_tasks_blocked


def run(scenario, *args):
    """Run one example on a clock that jumps ahead as soon as every task waits; whoever waits for ever fails it."""

    async def main():
        with trio.fail_after(1_000_000):
            return await scenario(*args)

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def all_tasks():
    """Return every living task of this run, the tasks of Trio itself among them."""
    waiting, found = [trio.lowlevel.current_root_task()], set()
    while waiting:
        task = waiting.pop()
        if task is not None and task not in found:
            found.add(task)
            waiting += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


class Channels:
    """Remembers every memory channel that is opened while it is installed."""

    def __init__(self):
        self.pairs = []
        self._open = trio.open_memory_channel

    def __getitem__(self, _kind):
        return self

    def __call__(self, capacity):
        pair = self._open(capacity)
        self.pairs.append(pair)
        return pair

    def __enter__(self):
        trio.open_memory_channel = self
        return self

    def __exit__(self, *_exc):
        trio.open_memory_channel = self._open

    def in_use(self):
        """Return the statistics of those that still can be read from or are waited on."""
        found = [receive.statistics() for _, receive in self.pairs]
        return [
            each
            for each in found
            if each.open_receive_channels or each.tasks_waiting_send or each.tasks_waiting_receive
        ]
