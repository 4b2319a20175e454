"""The command and the environment of a device process."""

import os
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.engine import environment
from atomr_trio.engine.environment import child_command, child_environment

names = st.text("ABCXYZ_", min_size=1, max_size=5)


@given(st.dictionaries(names, st.text()))
def test_the_servers_environment_is_kept(base):
    child = child_environment(base)
    assert {name: child[name] for name in base} == base
    assert child["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.9"


def test_what_the_operator_says_wins_and_what_would_hurt_is_dropped():
    base = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.4", "PYTHONWARNINGS": "error", "PYTHONINSPECT": "1"}
    child = child_environment(base)
    assert child["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.4"
    assert not {"PYTHONWARNINGS", "PYTHONINSPECT"} & set(child)
    assert len(base) == 3


@pytest.mark.parametrize("before", [None, "", os.pathsep.join(["/a", "/b"])])
def test_a_checkout_that_runs_in_place_is_found_by_the_child(monkeypatch, tmp_path, before):
    monkeypatch.setattr(environment, "_PACKAGE_ROOT", tmp_path)
    base = {} if before is None else {"PYTHONPATH": before}
    paths = child_environment(base)["PYTHONPATH"].split(os.pathsep)
    assert paths == [str(tmp_path), *filter(None, (before or "").split(os.pathsep))]


def test_an_installed_package_needs_no_path(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "_PACKAGE_ROOT", tmp_path / "site-packages")
    assert "PYTHONPATH" not in child_environment({})


def test_the_command_names_socket_and_parent():
    command = child_command(7, 42)
    assert command[0] == sys.executable
    assert command[-4:] == ["--fd", "7", "--parent-pid", "42"]
