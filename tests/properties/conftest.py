"""Crashes by the thousand are the point here: they are not worth a log line each."""

import logging

import pytest


@pytest.fixture(scope="package", autouse=True)
def quiet_core():
    """Formatting tracebacks that nobody reads would take half of the suite's time."""
    log = logging.getLogger("atomr_trio.actor")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    yield
    log.setLevel(level)
