"""The benchmark runs and says what it promises; how fast anything was is nobody's business here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

POSITIVE = (
    "tells_per_s",
    "raw_tells_per_s",
    "ask_us",
    "raw_pingpong_us",
    "fan_in_ask_us",
    "spawn_us",
    "raw_spawn_us",
    "child_spawn_us",
    "restart_us",
    "raw_restart_us",
)


def benchmark(*words):
    command = [sys.executable, "benchmarks/actors.py", "--quick", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.fixture(scope="module")
def results():
    return json.loads(benchmark("--json"))


def test_every_figure_stands_beside_its_floor(results):
    assert all(results[key] > 0 for key in POSITIVE)


def test_the_verdicts_are_there(results):
    keys = ("tells_per_s", "ask_us", "spawn_us", "restart_us", "bytes_per_actor")
    assert all(isinstance(results[f"{key}_holds"], bool) for key in keys)


def test_idle_actors_start_and_stop_cleanly(results):
    assert (results["tasks_left"], results["dead_letters"], results["idle_clean"]) == (0, 0, True)
    # Too few here to tell one from the other.
    assert results["bytes_per_actor"] >= 0


def test_the_machine_and_the_command_are_named(results):
    assert all(results[key] for key in ("cpu", "cores", "python", "trio", "clock"))
    assert results["command"] == "python benchmarks/actors.py --quick --json"


def test_a_missing_framework_is_said_to_be_missing(results):
    for name in ("pykka", "atomr"):
        measured = {key for key in results if key.startswith(name)} - {f"{name}_version"}
        assert bool(measured) == (results[f"{name}_version"] is not None)


def test_the_table_has_a_row_for_each_figure():
    table = benchmark("--only", "ask_us", "restart_us")
    assert "ask, one client" in table
    assert "restart" in table
    assert "spawn" not in table
