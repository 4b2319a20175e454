"""The limit of open files follows the limit of connections."""

import pytest

from atomr_trio.cli._files import RESERVE, make_room

resource = pytest.importorskip("resource")
FILES = resource.RLIMIT_NOFILE


@pytest.fixture
def limits(monkeypatch):
    """The process's limits, as far as the function can tell."""
    now = {"limits": (300, 5000)}
    monkeypatch.setattr(resource, "getrlimit", lambda _which: now["limits"])
    monkeypatch.setattr(resource, "setrlimit", lambda _which, given: now.update(limits=given))
    return now


@pytest.mark.parametrize(
    ("connections", "soft", "said"),
    [(10, 300, False), (300 - RESERVE, 300, False), (1000, 1000 + RESERVE, False), (10_000, 5000, True)],
)
def test_as_many_as_are_needed_and_allowed(limits, capsys, connections, soft, said):
    make_room(connections)
    assert limits["limits"] == (soft, 5000)
    assert ("--max-connections to 4744" in capsys.readouterr().err) == said


def test_without_limits_nothing_is_done(limits, capsys):
    limits["limits"] = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    make_room(10_000)
    assert limits["limits"][0] == resource.RLIM_INFINITY
    limits["limits"] = (300, resource.RLIM_INFINITY)
    make_room(10_000)
    assert limits["limits"][0] == 10_000 + RESERVE
    assert capsys.readouterr().err == ""


def test_a_system_that_refuses_is_no_failure(limits, monkeypatch, capsys):
    def refuse(_which, _given):
        raise ValueError("not allowed")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    make_room(1000)
    assert "ulimit -n" in capsys.readouterr().err
