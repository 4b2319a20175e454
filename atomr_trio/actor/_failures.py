"""Telling failures from cancellation when trio hands them over in one group."""

import logging
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import trio

T = TypeVar("T")

__all__ = ["attempt", "describe", "leaves", "purified"]

log = logging.getLogger("atomr_trio.actor")


async def attempt(fn: Callable[..., Awaitable[T]], *args: object) -> T:
    """Await ``fn(*args)`` and keep law 3: when cancellation comes out mixed with failures, it wins."""
    try:
        return await fn(*args)
    except BaseExceptionGroup as group:
        raise purified(group) from None


def purified(group: "BaseExceptionGroup[BaseException]") -> BaseException:
    """Return what a group means: its cancellation, if it holds one beside failures; else the group itself.

    A user's nursery can raise one group of ``Cancelled`` and errors. The errors were raised while being torn down:
    they are logged, and only the cancellation goes on.
    """
    cancelled, failures = group.split(trio.Cancelled)
    if cancelled is None or not isinstance(failures, Exception):
        return group
    log.error("failures while being cancelled", exc_info=group)
    return cancelled


def leaves(failure: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in a group, at any depth; a lone exception is its own leaf."""
    if isinstance(failure, BaseExceptionGroup):
        for nested in failure.exceptions:  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
            yield from leaves(nested)  # pyright: ignore[reportUnknownArgumentType]
    else:
        yield failure


def describe(failure: BaseException) -> str:
    """Say in one line what was raised and where; a group by its leaves."""
    return "; ".join(f"{leaf!r}{_where(leaf)}" for leaf in leaves(failure))


def _where(leaf: BaseException) -> str:
    frames = traceback.extract_tb(leaf.__traceback__, limit=-1)
    return f" at {frames[0].filename}:{frames[0].lineno}" if frames else ""
