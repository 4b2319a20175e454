"""Tasks that outlive what started them."""

from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import asynccontextmanager

import trio
import trio.testing
from attrs import define

__all__ = ["LeakedTasks", "all_tasks", "describe_task", "leaked_tasks", "no_leaks"]


@define
class LeakedTasks(AssertionError):
    """Tasks were started and are still there. ``tasks`` says of each its name and where it waits."""

    tasks: tuple[str, ...]

    def __str__(self) -> str:
        return f"{len(self.tasks)} left: " + "; ".join(self.tasks)


def all_tasks() -> frozenset[trio.lowlevel.Task]:
    """Return every task of this run, Trio's own among them."""
    root = trio.lowlevel.current_root_task()
    return frozenset(_below(root)) if root is not None else frozenset()


def _below(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    waiting = [task]
    while waiting:
        task = waiting.pop()
        yield task
        waiting.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)


def leaked_tasks(before: Iterable[trio.lowlevel.Task]) -> tuple[trio.lowlevel.Task, ...]:
    """Return the tasks that are here now and were not ``before`` (what ``all_tasks`` returned then), by name."""
    return tuple(sorted(all_tasks().difference(before), key=lambda task: task.name))


@asynccontextmanager
async def no_leaks() -> AsyncGenerator[None]:
    """Assert that every task started inside is gone at the end of the block, system tasks too.

    Tasks that are on their way out get the time to leave: the check comes when every task is blocked. An exception out
    of the block goes on unchecked.

    Raises:
        LeakedTasks: some are left.
    """
    before = all_tasks()
    yield
    if leaked_tasks(before):
        await trio.testing.wait_all_tasks_blocked()
    left = leaked_tasks(before)
    if left:
        raise LeakedTasks(tuple(describe_task(task) for task in left))


def describe_task(task: trio.lowlevel.Task) -> str:
    """Say in one line what a task is called and where it waits."""
    return f"{task.name} {_where(task)}"


def _where(task: trio.lowlevel.Task) -> str:
    # The innermost frame that is not Trio's own.
    frames = list(task.iter_await_frames())
    if not frames:
        return "which has ended"
    own = [found for found in frames if not _is_trios(str(found[0].f_globals.get("__name__", "")))]
    frame, line = own[-1] if own else frames[0]
    return f"at {frame.f_code.co_filename}:{line} in {frame.f_code.co_name}"


def _is_trios(module: str) -> bool:
    return module == "contextlib" or module.partition(".")[0] in ("trio", "outcome")
