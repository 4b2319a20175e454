"""The plugin as a user has it: in a project of its own, with pytest run on it."""

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture
def project(pytester):
    """A project with the plugin enabled; returns a function that runs pytest on the code of its tests."""
    pytester.makeconftest('pytest_plugins = ["atomr_trio.testing.pytest_plugin"]')

    def run(code, *args):
        pytester.makepyfile(
            f"""
import pytest, trio, trio.testing
from atomr_trio.actor import *
from atomr_trio.testing import *
from hypothesis import Phase, given, settings, strategies as st

class Echo(Actor):
    async def handle(self, message, ctx):
        if isinstance(message, Exception):
            raise message
        return message

{code}
"""
        )
        return pytester.runpytest("-p", "no:anyio", "-p", "no:schemathesis", "-p", "no:cacheprovider", *args)

    return run


def test_async_tests_run(project):
    result = project(
        """
async def test_passes():
    await trio.lowlevel.checkpoint()

async def test_fails():
    await trio.lowlevel.checkpoint()
    assert 1 == 2

class TestIt:
    async def test_method(self, tmp_path):
        assert tmp_path.exists()

@pytest.mark.parametrize("number", [1, 2])
async def test_each(number):
    assert number < 2

def test_plain():
    pass
"""
    )
    result.assert_outcomes(passed=4, failed=2)
    result.stdout.fnmatch_lines(["*assert 1 == 2*"])


def test_async_hypothesis_tests_run_each_example_in_its_own_run(project):
    result = project(
        """
runs = []

@settings(max_examples=20, database=None, deadline=None)
@given(number=st.integers(0, 100), _seed=st.random_module())
async def test_small(actor_system, autojump_clock, number, _seed):
    assert trio.current_time() == 0
    ref = await actor_system.actor_of(Props(factory=Echo), "echo")
    assert await ref.ask(number, timeout=1) == number
    await trio.sleep(500)
    runs.append(actor_system)

def test_afterwards():
    assert len(runs) >= 2 and len(set(map(id, runs))) == len(runs)

@settings(max_examples=100, database=None, deadline=None, phases=[Phase.generate, Phase.shrink])
@given(number=st.integers(0, 100))
async def test_large(number):
    assert number < 50
"""
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*number=50*"])


def test_clocks_are_virtual(project):
    result = project(
        """
import time

async def test_jumps(autojump_clock):
    assert isinstance(autojump_clock, trio.testing.MockClock)
    began = time.monotonic()
    await trio.sleep(500)
    assert trio.current_time() == 500 and time.monotonic() - began < 100

async def test_stands(mock_clock):
    assert isinstance(mock_clock, ManualClock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 500)
        await mock_clock.advance(500)
    assert trio.current_time() == 500

async def test_both(mock_clock, autojump_clock):
    pass

def test_plain(autojump_clock):
    async def main():
        await trio.sleep(100)
    trio.run(main, clock=autojump_clock)
"""
    )
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["*a test can have one clock only*"])


def test_a_deadlock_in_virtual_time_fails_at_once(project):
    result = project(
        """
async def test_waits(autojump_clock):
    await trio.Event().wait()
""",
        "-o",
        "trio_timeout=1000000",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*TooSlowError*"])


def test_the_system_is_open_in_the_test_and_stopped_after_it(project):
    result = project(
        """
kept = []

async def test_open(actor_system, autojump_clock):
    kept.append(await actor_system.actor_of(Props(factory=Echo), "echo"))
    assert await kept[0].ask(3, timeout=1) == 3

def test_after():
    assert kept[0].is_terminated

async def test_another_one(actor_system):
    assert actor_system.lookup("/echo") is None
"""
    )
    result.assert_outcomes(passed=3)


def test_an_unhandled_failure_of_the_system_fails_the_test(project):
    result = project(
        """
async def test_waits(actor_system, autojump_clock):
    ref = await actor_system.actor_of(Props(factory=Echo), "echo")
    ref.tell(ValueError("boom"))
    await trio.sleep_forever()

async def test_ends(actor_system, autojump_clock):
    ref = await actor_system.actor_of(Props(factory=Echo), "echo")
    ref.tell(ValueError("boom"))
    await trio.testing.wait_all_tasks_blocked()

@pytest.mark.parametrize("outcome", [pytest.skip, pytest.fail, pytest.xfail])
async def test_outcomes_get_out(actor_system, outcome):
    outcome("on purpose")
"""
    )
    result.assert_outcomes(failed=3, skipped=1, xfailed=1)
    result.stdout.fnmatch_lines(["*ChildEscalated*", "*Failed: on purpose*"])


def test_fixtures_of_ones_own_live_in_the_run_too(project):
    result = project(
        """
from contextlib import asynccontextmanager
from atomr_trio.testing.pytest_plugin import TrioFixture

log = []

@asynccontextmanager
async def open_echo(system, name):
    log.append("open")
    ref = await system.actor_of(Props(factory=Echo), name)
    yield ref
    assert not ref.is_terminated
    log.append("close")

@pytest.fixture
def echo(actor_system, autojump_clock):
    return TrioFixture(open_echo, actor_system, "echo")

async def test_it(echo, actor_system):
    assert log == ["open"]
    assert echo == actor_system.lookup("/echo")
    assert await echo.ask(3, timeout=1) == 3

def test_closed():
    assert log == ["open", "close"]

def test_plain(echo):
    pass
"""
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["*the fixture 'echo' lives in a Trio run: make the test `async def`*"])


def test_the_kit_works_without_pytest_and_hypothesis():
    code = """
import sys
sys.modules["pytest"] = sys.modules["hypothesis"] = None
import trio, atomr_trio.testing as kit
assert kit.cancel_everywhere(trio.lowlevel.checkpoint).points == 1
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
