"""The benchmark for GPUs: its arithmetic, its table, and what it says where there is none."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rooms():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield importlib.import_module("gpu"), importlib.import_module("_gpu_models")
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


@pytest.mark.parametrize(
    ("model", "dtype", "gigabytes", "kib_per_token"),
    # As published: 1.24 billion weights, tied; 8.03 billion, of which 0.53 are an embedding that is looked up.
    [
        ("llama-3.2-1b", "bfloat16", 2.47, 32),
        ("llama-3.1-8b", "bfloat16", 15.0, 128),
        ("llama-3.1-8b", "int8", 7.51, 128),
    ],
)
def test_what_a_step_reads(rooms, model, dtype, gigabytes, kib_per_token):
    _, models = rooms
    weights = models.step_bytes(model, dtype, 0)
    assert weights / 1e9 == pytest.approx(gigabytes, rel=0.01)
    assert models.step_bytes(model, dtype, 10) - weights == 10 * kib_per_token * 1024


def test_the_folder_that_it_writes_is_a_model(rooms, tmp_path):
    from atomr_trio.engine.config import ModelConfig

    _, models = rooms
    for name, about in models.MODELS.items():
        config = ModelConfig.read(models.write_folder(name, tmp_path))
        assert (config.hidden_size, config.num_layers) == (about["hidden_size"], about["num_hidden_layers"])


def test_the_fraction_is_of_the_time_that_the_memory_takes(rooms):
    gpu, models = rooms
    [case] = [case for case in gpu.cases_of("tiny", "bfloat16") if case.part == "ours"]
    read = models.step_bytes("tiny", "bfloat16", 7)
    found = {"decode": [{"context_tokens": 7, "step_ms": 4.0, "tokens_per_s": 250.0}]}
    [row] = gpu.with_fractions(found, case, read / 0.001)["decode"]
    assert row["fraction"] == pytest.approx(0.25)
    assert gpu.cell(row) == "250 tok/s (25%)"


@pytest.mark.parametrize("outcome", [{"failed": "Boom: it broke"}, {"skipped": "PyTorch is not installed"}])
def test_a_case_without_figures_says_why(rooms, outcome):
    gpu, _ = rooms
    assert next(iter(outcome.values())) in gpu.line({"title": "PyTorch", **outcome}, 3)


def test_a_worker_that_fails_is_a_result(rooms):
    gpu, _ = rooms
    assert gpu.run_worker("_gpu_ours.py", {}) == {"failed": "KeyError: 'streams'"}


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="for machines without one")
def test_without_a_gpu_it_says_so():
    done = subprocess.run([sys.executable, "benchmarks/gpu.py"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("benchmarks/gpu.py needs a GPU that jax can use, and jax finds: only cpu\n")
    assert done.stdout == ""


def test_the_checks_run_on_any_machine():
    options = json.dumps({"tiny": True, "checks": ["cache_update", "top_k", "donated_after_exhaustion"]})
    command = [sys.executable, "benchmarks/_gpu_checks.py", options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    found = json.loads(done.stdout)
    assert found["top_k"]["1 rows"]["top_k_us"] > 0
    assert found["cache_update"]["pool_bytes"] > 0
