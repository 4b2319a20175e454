"""Compiled programs on disk: found again, apart for each processor, and never torn for long."""

import os
import subprocess
import sys
import warnings

import pytest

from atomr_trio.engine.environment import child_environment
from atomr_trio.engine.program_cache import discard_unreadable_programs, host_tag, programs_folder

SCRIPT = """
import sys, warnings
from atomr_trio.engine.program_cache import discard_unreadable_programs, programs_folder, use_compilation_cache
warnings.simplefilter("ignore")
discard_unreadable_programs(programs_folder(sys.argv[1]))
use_compilation_cache(sys.argv[1])
import jax
print(jax.jit(lambda x: x * 3)(1.0))
"""


def run(folder):
    command = [sys.executable, "-c", SCRIPT, str(folder)]
    done = subprocess.run(command, env=child_environment(os.environ), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert float(done.stdout) == 3.0
    return {entry: entry.stat().st_size for entry in programs_folder(str(folder)).iterdir()}


def test_torn_programs_are_replaced(tmp_path):
    whole = run(tmp_path)
    assert whole
    for entry in whole:
        os.truncate(entry, 10)
        os.utime(entry, (1, 1))
    # The first process finds them torn and deletes them, the next one writes what the first could not.
    run(tmp_path)
    healed = run(tmp_path)
    assert healed.keys() == whole.keys()
    assert min(healed.values()) > 10


@pytest.fixture
def hooked(tmp_path, monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (tmp_path / "old").write_bytes(b"")
        os.utime(tmp_path / "old", (1, 1))
        discard_unreadable_programs(tmp_path)
        yield tmp_path


def test_only_what_earlier_processes_left_is_deleted(hooked):
    (hooked / "new").write_bytes(b"")
    os.utime(hooked / "new", (2**33, 2**33))
    warnings.warn("Error reading persistent compilation cache entry for 'jit_f': torn", stacklevel=1)
    assert [entry.name for entry in hooked.iterdir()] == ["new"]


def test_other_warnings_delete_nothing(hooked):
    warnings.warn("something else", stacklevel=1)
    assert [entry.name for entry in hooked.iterdir()] == ["old"]


def test_machines_of_one_kind_share_a_folder(tmp_path):
    assert programs_folder(str(tmp_path)) == tmp_path / host_tag()
    assert host_tag() == host_tag()
    assert "/" not in host_tag()
