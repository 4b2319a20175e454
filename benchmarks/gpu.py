"""How close decoding on a GPU comes to what its memory allows, and what each part of the engine adds to that.

For Llama-3.2-1B and Llama-3.1-8B (their shapes, random weights) in bfloat16 and int8: tokens per second of 1, 8 and 64
streams through this project's engine, in process; beside it the same model in PyTorch (static cache, `torch.compile`);
and the engine once more without command buffers (CUDA graphs), without the attention kernels, and with one step at a
time. The *fraction* is that of the roofline: a step reads every weight once, and all cached keys and values, at the
speed of the fastest plain copy measured here. Then what a start costs without and with compiled programs on disk, the
largest kernels of a step, and questions to the device and the compiler that decide how the engine is written.

Every case is a process of its own, one after another: nothing else should use the GPU. The first case of a model
compiles its programs, which takes minutes. Needs a GPU that jax can use; PyTorch may be missing, and then says so.

    python benchmarks/gpu.py [--models llama-3.2-1b] [--dtypes bfloat16] [--streams 1 8 64] [--only ours torch] [--json]

`--tiny` runs all of it at toy sizes on any machine, to see that it runs: its figures mean nothing.
"""

import argparse
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from _gpu_models import MODELS, step_bytes, write_folder
from attrs import evolve, field, frozen

from atomr_trio.engine import child_environment

HERE = Path(__file__).parent
LONGEST_S = 1800
PARTS = ("checks", "ours", "variants", "start", "profile", "torch")
CHECKS = (
    ("bandwidth",),
    ("decode_kernel", "prefill"),
    ("cache_update", "int8_fusion", "top_k"),
    # In a process of its own: what it does to the device may last.
    ("donated_after_exhaustion",),
)


@frozen(kw_only=True)
class Case:
    """One process to run.

    Args:
        part: of the benchmark, as `--only` names it.
        title: of its row.
        model: which.
        dtype: of its weights.
        script: beside this file.
        options: of the script, beyond those that all have.
        flags: further XLA flags.
    """

    part: str
    title: str
    model: str
    dtype: str
    script: str = "_gpu_ours.py"
    options: dict[str, Any] = field(factory=dict)
    flags: str = ""


def cases_of(model: str, dtype: str) -> list[Case]:
    ours = Case(part="ours", title="atomr_trio", model=model, dtype=dtype)
    variants: list[tuple[str, dict[str, Any], str]] = [
        ("  no command buffers", {}, "--xla_gpu_enable_command_buffer="),
        ("  no attention kernels", {"settings": {"attention": "xla"}}, ""),
        ("  one step at a time", {"settings": {"steps_ahead": 1}}, ""),
    ]
    return [
        ours,
        evolve(ours, part="start", title="  started again", options={"rounds": 0}),
        *(evolve(ours, part="variants", title=name, options=given, flags=flags) for name, given, flags in variants),
        evolve(ours, part="profile", title="  its kernels", options={"rounds": 0, "profile": 8}),
        evolve(ours, part="torch", title="PyTorch", script="_gpu_torch.py"),
    ]


def run_worker(script: str, options: dict[str, Any], flags: str = "") -> dict[str, Any]:
    """Run a script with JSON in and out. What goes wrong in it is a result, too: the others are worth having."""
    environment = child_environment(os.environ)
    environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
    command = [sys.executable, str(HERE / script), json.dumps(options)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        return {"failed": f"it took more than {LONGEST_S} s"}
    lines = done.stdout.splitlines()
    if done.returncode == 0 and lines:
        return json.loads(lines[-1])
    why = [line for line in done.stderr.splitlines() if line.strip()]
    return {"failed": why[-1] if why else f"exit status {done.returncode}"}


def check_device(options: argparse.Namespace) -> dict[str, Any]:
    found = run_worker("_gpu_checks.py", {"tiny": options.tiny, "checks": []})
    if options.tiny or found.get("backend") == "gpu":
        return found
    seen = found.get("failed") or f"only {found['device']}"
    sys.exit(
        f"benchmarks/gpu.py needs a GPU that jax can use, and jax {'says' if 'failed' in found else 'finds'}: {seen}\n"
        "install the extra cuda12 or cuda13 on a machine with one; --tiny runs it anywhere, at toy sizes"
    )


def run_checks(options: argparse.Namespace) -> dict[str, Any]:
    """All checks; only the bandwidth, which everything is measured against, if they were not asked for."""
    results: dict[str, Any] = {}
    for checks in CHECKS if "checks" in options.only else CHECKS[:1]:
        found = run_worker("_gpu_checks.py", {"tiny": options.tiny, "checks": checks})
        results |= {name: found.get(name, found) for name in checks}
    return results


def run_case(case: Case, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    if case.part == "torch" and importlib.util.find_spec("torch") is None:
        return {"skipped": "PyTorch is not installed"}
    given = {
        "model": write_folder(case.model, folder),
        "config": MODELS[case.model],
        "vocab_size": MODELS[case.model]["vocab_size"],
        "dtype": case.dtype,
        "cache_dir": options.programs or str(folder / "programs"),
        "tiny": options.tiny,
        "streams": options.streams,
        "prompt": options.prompt,
        "tokens": options.tokens,
        "rounds": options.rounds,
    }
    return run_worker(case.script, given | case.options, case.flags)


def with_fractions(found: dict[str, Any], case: Case, bandwidth: float | None) -> dict[str, Any]:
    """Add to each measured number of streams how near it is to the roofline."""
    if bandwidth is None or "decode" not in found:
        return found
    for row in found["decode"]:
        least = step_bytes(case.model, case.dtype, row["context_tokens"]) / bandwidth
        row["fraction"] = 1000 * least / row["step_ms"]
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    device = check_device(options)
    results: dict[str, Any] = {
        "command": shlex.join(["python", *sys.argv]),
        "device": device,
        "checks": run_checks(options),
        "cases": [],
    }
    bandwidth = results["checks"]["bandwidth"].get("bytes_per_s")
    with tempfile.TemporaryDirectory() as folder:
        for case in (case for model in options.models for dtype in options.dtypes for case in cases_of(model, dtype)):
            if case.part not in options.only:
                continue
            print(f"{case.model} {case.dtype}: {case.title.strip()} …", file=sys.stderr)
            found = with_fractions(run_case(case, options, Path(folder)), case, bandwidth)
            about = {"part": case.part, "title": case.title, "model": case.model, "dtype": case.dtype}
            results["cases"].append(about | found)
    return results


def show(results: dict[str, Any], options: argparse.Namespace) -> None:
    device, copied = results["device"], results["checks"]["bandwidth"].get("bytes_per_s")
    print(f"{device['device']}, jax {device['jax']}; a plain copy moves {(copied or 0) / 1e12:.2f} TB/s")
    print(f"{results['command']}   (medians of {options.rounds} rounds of {options.tokens} steps)")
    if options.tiny:
        print("toy sizes: the figures mean nothing")
    for model, dtype in ((model, dtype) for model in options.models for dtype in options.dtypes):
        heads = "".join(f"{f'{n} streams':>22}" for n in options.streams)
        print(f"\n{f'{model} {dtype}':<28}{heads}{'start s':>10}")
        for case in results["cases"]:
            if (case["model"], case["dtype"]) == (model, dtype) and "kernels" not in case:
                print(line(case, len(options.streams)))
    show_kernels(results)
    print("\nchecks")
    for name, found in results["checks"].items():
        print(f"  {name}: {json.dumps(found)}")


def line(case: dict[str, Any], streams: int) -> str:
    why = case.get("failed") or case.get("skipped")
    if why is not None:
        return f"{case['title']:<28}  {'failed' if 'failed' in case else 'not measured'}: {why}"
    cells = "".join(f"{cell(row):>22}" for row in case.get("decode", [])) or 22 * streams * " "
    start = f"{case['start_s']:>10.1f}" if "start_s" in case else ""
    return f"{case['title']:<28}{cells}{start}"


def cell(row: dict[str, float]) -> str:
    fraction = f" ({row['fraction']:.0%})" if "fraction" in row else ""
    return f"{row['tokens_per_s']:,.0f} tok/s{fraction}"


def show_kernels(results: dict[str, Any]) -> None:
    for case in (case for case in results["cases"] if "kernels" in case):
        found = case["kernels"]
        said = "{streams} streams, {busy_ms:.2f} ms of kernels in a step of {step_ms:.2f} ms".format_map(found)
        print(f"\n{case['model']} {case['dtype']}: {said} (no command buffers while profiling)")
        for kernel in found["largest"]:
            print(f"  {kernel['share']:>6.1%} {kernel['calls']:>8} calls  {kernel['name'][:90]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=["llama-3.2-1b", "llama-3.1-8b"])
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16", "int8"], default=["bfloat16", "int8"])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--prompt", type=int, default=128, help="tokens of each prompt")
    parser.add_argument("--tokens", type=int, default=128, help="steps that are measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--programs", help="folder that keeps compiled programs for the next run; none by default")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, on any machine: does it run?")
    parser.add_argument("--json", action="store_true", help="the JSON object alone")
    options = parser.parse_args()
    if options.tiny:
        options.models, options.dtypes, options.streams = ["tiny"], options.dtypes[:1], [1, 2]
        options.prompt, options.tokens, options.rounds = 16, 8, 1
    results = measure(options)
    if not options.json:
        show(results, options)
        print()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
