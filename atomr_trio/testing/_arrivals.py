"""Waiting for what should come, and saying what came instead."""

import inspect
from collections import deque
from collections.abc import Callable
from typing import Any

import trio

__all__ = ["Arrivals", "Wanted", "matches", "name_of"]

Wanted = type[Any] | Callable[[Any], bool] | Any
"""A class to be an instance of, a function that says yes, or a value to be equal to."""


class Arrivals:
    """A queue of what has come, with the demands that a test makes of it.

    Args:
        whose: for the messages of demands that are not met.
    """

    def __init__(self, whose: str) -> None:
        self.whose = whose
        self.all: list[Any] = []
        self._waiting: deque[tuple[Any, Any]] = deque()
        self._lot = trio.lowlevel.ParkingLot()

    def put(self, value: Any, tag: Any = None) -> None:
        """Something has come; ``tag`` is handed over together with it."""
        self.all.append(value)
        self._waiting.append((value, tag))
        self._lot.unpark_all()

    async def next(self, wanted: Wanted, within: float) -> tuple[Any, Any]:
        """Take the next arrival, which must be what is wanted, and return it with its tag.

        Raises:
            AssertionError: something else came, or nothing.
        """
        if not await self._any(trio.current_time() + within):
            raise self._complaint(f"no {name_of(wanted)} came within {within:g}s")
        value, tag = self._waiting.popleft()
        if not matches(wanted, value):
            raise self._complaint(f"wanted {name_of(wanted)}, got {value!r}")
        return value, tag

    async def fish(self, wanted: Wanted, within: float) -> tuple[Any, Any]:
        """Take arrivals until one is what is wanted; the others are passed over.

        Raises:
            AssertionError: none came in time.
        """
        deadline = trio.current_time() + within
        while await self._any(deadline):
            value, tag = self._waiting.popleft()
            if matches(wanted, value):
                return value, tag
        raise self._complaint(f"no {name_of(wanted)} came within {within:g}s")

    async def none(self, within: float) -> None:
        """Let ``within`` seconds pass, in which nothing may come.

        Raises:
            AssertionError: something came, or had come before and was not taken.
        """
        if await self._any(trio.current_time() + within):
            came = ", ".join(repr(value) for value, _ in self._waiting)
            raise self._complaint(f"wanted nothing for {within:g}s, got {came}")

    async def _any(self, deadline: float) -> bool:
        with trio.CancelScope(deadline=deadline):
            await trio.lowlevel.checkpoint()
            while not self._waiting:
                await self._lot.park()
        return bool(self._waiting)

    def _complaint(self, what: str) -> AssertionError:
        history = "nothing has come at all"
        if self.all:
            history = f"{len(self.all)} in all: {', '.join(map(repr, self.all[-10:]))}"
        return AssertionError(f"{self.whose}: {what} ({history})")


def matches(wanted: Wanted, value: Any) -> bool:
    """Say whether a value is what was wanted."""
    if isinstance(wanted, type):
        return isinstance(value, wanted)
    if inspect.isfunction(wanted):
        return bool(wanted(value))
    return bool(wanted == value)


def name_of(wanted: Wanted) -> str:
    """Say what was wanted."""
    if isinstance(wanted, type):
        return wanted.__name__
    if inspect.isfunction(wanted):
        return f"match for {wanted.__name__}"
    return repr(wanted)
