from pathlib import Path

import pytest

from atomr_trio.catalog import DownloadFailed, NoSpace
from atomr_trio.catalog._wheel import _pip_options, _pip_version, classify_pip_failure


@pytest.mark.parametrize(
    ("output", "kind", "says"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", NoSpace, "disk"),
        ("OSError: [Errno 122] Disk quota exceeded", NoSpace, "disk"),
        (
            "WARNING: Retrying ... NewConnectionError(...)\nERROR: No matching distribution found for x",
            DownloadFailed,
            "network",
        ),
        ("ERROR: HTTP error 403 while getting https://x", DownloadFailed, "pip says: HTTP error 403"),
        ("ERROR: No matching distribution found for x", DownloadFailed, "does not have it"),
        ("something odd", DownloadFailed, "pip says: something odd."),
        ("", DownloadFailed, "status 7"),
    ],
)
def test_what_pip_says_becomes_a_typed_error(output, kind, says):
    error = classify_pip_failure("the wheel x", output, 7, Path("/cache"))
    assert type(error) is kind
    assert says in str(error)


@pytest.mark.parametrize(
    ("version", "patient"), [((23, 2), False), ((25, 0), False), ((25, 1), True), ((26, 0), True), ((0,), False)]
)
def test_interrupted_transfers_are_resumed_where_pip_can(monkeypatch, version, patient):
    monkeypatch.setattr("atomr_trio.catalog._wheel._pip_version", lambda: version)
    assert ("--resume-retries" in _pip_options()) is patient


def test_the_version_of_pip_is_known():
    assert _pip_version() >= (20,)
