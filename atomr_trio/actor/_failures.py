"""Telling failures from cancellation when trio hands them over in one group."""

import logging
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
    """Yield the exceptions in a group, at any depth; a lone exception is its own leaf.

    Examples:
        >>> list(leaves(ExceptionGroup("both", [ValueError(1), ExceptionGroup("one", [KeyError(2)])])))
        [ValueError(1), KeyError(2)]
    """
    if isinstance(failure, BaseExceptionGroup):
        for nested in failure.exceptions:  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
            yield from leaves(nested)  # pyright: ignore[reportUnknownArgumentType]
    else:
        yield failure


def describe(failure: BaseException) -> str:
    """Say in one line what was raised and where; a group by its leaves."""
    return "; ".join(f"{leaf!r}{_where(leaf)}" for leaf in leaves(failure))


def _where(leaf: BaseException) -> str:
    # By hand: `traceback.extract_tb` reads the source file, which costs more than the restart it reports.
    innermost = leaf.__traceback__
    while innermost is not None and innermost.tb_next is not None:
        innermost = innermost.tb_next
    return f" at {innermost.tb_frame.f_code.co_filename}:{innermost.tb_lineno}" if innermost is not None else ""
