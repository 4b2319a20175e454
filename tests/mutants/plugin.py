"""The part of the harness that lives inside the test runs: what it needs from pytest, hypothesis and Trio.

Nothing is shrunk or remembered: one failure is enough. A run of Trio that takes too long ends the process, so that a
fault that hangs costs seconds. A journal tells which test was under way, also after such an end.
"""

import faulthandler
import os
import resource
import sys
import time
from functools import wraps
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, Phase, settings

JOURNAL = Path(os.environ["MUTANTS_JOURNAL"])
LIMIT = float(os.environ["MUTANTS_LIMIT"])
FIRST = tuple(filter(None, os.environ["MUTANTS_FIRST"].split(",")))
NEAR = bool(os.environ.get("MUTANTS_NEAR"))
MEMORY = 4 << 30

settings.register_profile(
    "mutants",
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    report_multiple_bugs=False,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)

slowest = 0.0


def _note(kind, what):
    with JOURNAL.open("a") as journal:
        journal.write(f"{kind} {what}\n")


def _guarded(run):
    @wraps(run)
    def guarded(*args, **kwargs):
        global slowest
        began = time.monotonic()
        faulthandler.dump_traceback_later(LIMIT, exit=True, file=sys.__stderr__)
        try:
            return run(*args, **kwargs)
        finally:
            faulthandler.cancel_dump_traceback_later()
            slowest = max(slowest, time.monotonic() - began)

    return guarded


trio.run = _guarded(trio.run)


def pytest_configure(config):
    # A fault may restart, or send, without end.
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    def rank(item):
        hints = [place for place, hint in enumerate(FIRST) if hint in item.nodeid]
        return ("simulation" in item.nodeid, hints[0] if hints else len(FIRST))

    items.sort(key=rank)
    if NEAR and FIRST:
        items[:] = [item for item in items if any(hint in item.nodeid for hint in FIRST)]


def pytest_runtest_logstart(nodeid):
    _note("start", nodeid)


def pytest_runtest_logreport(report):
    if report.failed:
        _note("fail", report.nodeid)


def pytest_sessionfinish():
    _note("slowest", f"{slowest:.3f}")
