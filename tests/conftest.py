"""Runs `async def` tests under Trio, with hypothesis too, and provides the fixtures every room shares."""

import inspect
from functools import wraps
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, settings

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("default")


def _run(fn, kwargs):
    clocks = [value for value in kwargs.values() if isinstance(value, trio.abc.Clock)]

    async def main():
        with trio.fail_after(600):
            await fn(**kwargs)

    trio.run(main, clock=clocks[0] if clocks else None)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Run a coroutine test in its own `trio.run`; under `@given`, each example gets its own."""
    fn = pyfuncitem.obj
    if hasattr(fn, "hypothesis"):
        inner = fn.hypothesis.inner_test
        if inspect.iscoroutinefunction(inner):

            @wraps(inner)
            def sync_inner(**kwargs):
                _run(inner, kwargs)

            fn.hypothesis.inner_test = sync_inner
        return None
    if not inspect.iscoroutinefunction(fn):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    _run(fn, {name: pyfuncitem.funcargs[name] for name in names})
    return True


@pytest.fixture
def autojump_clock():
    """Virtual time: jumps ahead as soon as every task waits."""
    return trio.testing.MockClock(autojump_threshold=0)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    return Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The default model, fetched once into the user's cache."""
    from atomr_trio.catalog import default_catalog, ensure_model

    return ensure_model(default_catalog(), "smollm2-135m-instruct")
