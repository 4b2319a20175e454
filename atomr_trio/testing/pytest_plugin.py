"""The pytest plugin: ``async def`` tests run under Trio, hypothesis ones too; fixtures live in the test's own run.

Enable it in the root ``conftest.py``: ``pytest_plugins = ["atomr_trio.testing.pytest_plugin"]``. It takes over every
``async def`` test, so it does not go together with pytest-trio; if anyio is installed, add ``-p no:anyio``.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial, wraps
from typing import Any, Generic, TypeVar, cast

import pytest
import trio
import trio.testing

from atomr_trio.actor import ActorSystem, leaves

from ._clock import ManualClock

T = TypeVar("T")

__all__ = ["ClockFixture", "TrioFixture", "actor_system", "autojump_clock", "mock_clock"]

RUNS_EXAMPLES = "__atomr_trio_runs_examples__"
OUTCOMES = (pytest.skip.Exception, pytest.fail.Exception, pytest.xfail.Exception)


class ClockFixture:
    """What a fixture returns to set the clock of the test's run; each hypothesis example gets a new one."""

    def __init__(self, make: Callable[[], trio.abc.Clock]) -> None:
        self.make = make


class TrioFixture(Generic[T]):
    """What a fixture returns that needs a running loop: it is opened in the test's own run, and closed after the test.

    It keeps no state of a run, so a fixture that returns it may have any scope; with ``scope="session"`` hypothesis
    does not object to it, and each example opens its own.

    Args:
        open: returns the async context manager; the test gets what it yields.
        args: arguments of ``open``. Those that are such fixtures themselves are opened first, once for all.
    """

    def __init__(self, open: Callable[..., AbstractAsyncContextManager[T]], *args: Any) -> None:
        self.open = open
        self.args = args


class _Run:
    """What the fixtures of one run stand for."""

    def __init__(self, values: Iterable[Any]) -> None:
        clocks = dict.fromkeys(_clocks(values))
        if len(clocks) > 1:
            raise pytest.UsageError("a test can have one clock only")
        self._values: dict[object, Any] = {
            fixture: fixture.make() if isinstance(fixture, ClockFixture) else fixture for fixture in clocks
        }
        self.clock: trio.abc.Clock | None = next(iter(self._values.values()), None)
        self.stack = AsyncExitStack()

    async def value(self, given: Any) -> Any:
        if isinstance(given, TrioFixture) and given not in self._values:
            fixture = cast("TrioFixture[Any]", given)
            args = [await self.value(arg) for arg in fixture.args]
            self._values[fixture] = await self.stack.enter_async_context(fixture.open(*args))
        return self._values[given] if isinstance(given, TrioFixture | ClockFixture) else given


def _clocks(values: Iterable[Any]) -> Iterator[trio.abc.Clock | ClockFixture]:
    for value in values:
        if isinstance(value, trio.abc.Clock | ClockFixture):
            yield value
        elif isinstance(value, TrioFixture):
            yield from _clocks(cast("TrioFixture[Any]", value).args)


def _run(test: Callable[..., Any], timeout: float, **kwargs: Any) -> None:
    run = _Run(kwargs.values())

    async def main() -> None:
        with trio.fail_after(timeout):
            async with run.stack:
                await test(**{name: await run.value(given) for name, given in kwargs.items()})

    try:
        trio.run(main, clock=run.clock)
    except BaseExceptionGroup as group:
        # `pytest.skip()` and its like, wrapped by a nursery around the test, still mean what they say.
        sole = list(leaves(group))
        if len(sole) == 1 and isinstance(sole[0], OUTCOMES):
            raise sole[0] from None
        raise


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the plugin's setting."""
    parser.addini("trio_timeout", "seconds, on the test's clock, that an async test may take", default="600")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test in its own ``trio.run``; under ``@given``, each example gets its own."""
    test: Any = pyfuncitem.obj
    timeout = float(pyfuncitem.config.getini("trio_timeout"))
    arguments = [name for name in inspect.signature(test).parameters if name in pyfuncitem.funcargs]
    if inspect.iscoroutinefunction(test):
        _run(test, timeout, **{name: pyfuncitem.funcargs[name] for name in arguments})
        return True
    inner: Any = getattr(getattr(test, "hypothesis", None), "inner_test", None)
    if inspect.iscoroutinefunction(inner):
        test.hypothesis.inner_test = inner = _example(inner, timeout)
    if not hasattr(inner, RUNS_EXAMPLES):
        _settle(pyfuncitem, arguments)
    return None


def _example(inner: Callable[..., Any], timeout: float) -> Callable[..., None]:
    @wraps(inner)
    def example(**kwargs: Any) -> None:
        _run(inner, timeout, **kwargs)

    # The function is met again when the test is parametrized.
    setattr(example, RUNS_EXAMPLES, True)
    return example


def _settle(item: pytest.Function, arguments: list[str]) -> None:
    """Give a plain test its clock; what needs a run it cannot have."""
    for name in arguments:
        value = item.funcargs[name]
        if isinstance(value, TrioFixture):
            pytest.fail(f"the fixture {name!r} lives in a Trio run: make the test `async def`", pytrace=False)
        if isinstance(value, ClockFixture):
            item.funcargs[name] = value.make()


@pytest.fixture(scope="session")
def autojump_clock() -> Any:
    """Virtual time: jumps ahead as soon as every task waits. The test gets the ``trio.testing.MockClock``."""
    return ClockFixture(lambda: trio.testing.MockClock(autojump_threshold=0))


@pytest.fixture(scope="session")
def mock_clock() -> Any:
    """Virtual time that stands still but for ``await mock_clock.advance(seconds)``: a ``ManualClock``."""
    return ClockFixture(ManualClock)


@pytest.fixture(scope="session")
def actor_system() -> Any:
    """An open ``ActorSystem``; a failure that nobody handles ends the test with it."""
    return TrioFixture(partial(ActorSystem.create, "test"))
