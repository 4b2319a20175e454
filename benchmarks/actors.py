"""What the actor core costs: tell, ask, spawn, restart and an idle actor, each beside its floor on the same machine.

The floor is Trio without actors: a memory channel drained by `receive_nowait`, a ping-pong of two tasks, a task that
opens a nursery, a nursery that fails and is opened again. Floor and actor are measured alternately, round by round, and
the medians are shown; one warm-up round is thrown away. A restart's warning is logged at level INFO to a handler that
drops it. Idle actors live in a process of their own, and so do pykka and the `atomr` wheel, where they are installed
(`pip install -e '.[bench]'`); neither waits for a start to be over, so theirs count to the first sign of life.

    python benchmarks/actors.py [--rounds 15] [--quick] [--clock wall|cpu] [--only KEY ...] [--json]

`--clock cpu` times this process's own processor time: on a machine that others use too it is the steadier one.
"""

import argparse
import json
import logging
import os
import platform
import shlex
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import _actors_clock
import trio
from _actors_scenarios import BYTES_PER_ACTOR, FIGURES, Figure, Scenario
from _actors_table import table

HERE = Path(__file__).parent
Results = dict[str, float | int | str | bool | None]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the work: it runs, but how fast?")
    parser.add_argument("--clock", choices=sorted(_actors_clock.CLOCKS), default="wall")
    parser.add_argument("--only", nargs="+", metavar="KEY", help="measure these figures alone, nothing else")
    parser.add_argument("--idle", type=int, default=10_000, help="idle actors")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def machine() -> Results:
    """What the figures depend on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            model = next(line.partition(":")[2].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "cpu": model,
        "cores": cores,
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "trio": version("trio"),
    }


def run(scenario: Scenario, count: int) -> float:
    return trio.run(scenario, count)


def measure(figure: Figure, rounds: int, scale: int) -> Results:
    """Floor, ours, floor, ours ...: whatever disturbs the machine disturbs both."""
    count = max(figure.count // scale, 1000 if figure.per_second else 20)
    ours: list[float] = []
    floors: list[float] = []
    for number in range(rounds + 1):
        floor = run(figure.floor, count) if figure.floor is not None else None
        seconds = run(figure.ours, count)
        if number:  # the first one warms up
            ours.append(seconds)
            floors.extend([floor] if floor is not None else [])
    return summary(figure, ours, floors)


def summary(figure: Figure, ours: list[float], floors: list[float]) -> Results:
    """Medians; the share of the floor's speed is the median over the rounds, each compared with its own floor."""
    median = in_unit(figure, statistics.median(ours))
    results: Results = {figure.key: median, f"{figure.key}_best": in_unit(figure, min(ours))}
    share = None
    if floors:
        share = statistics.median(floor / seconds for floor, seconds in zip(floors, ours, strict=True))
        results[figure.floor_key] = in_unit(figure, statistics.median(floors))
        results[f"{figure.key}_of_floor"] = share
    if figure.limit is not None or figure.share is not None:
        results[f"{figure.key}_holds"] = holds(figure, median, share)
    return results


def in_unit(figure: Figure, seconds: float) -> float:
    return 1 / seconds if figure.per_second else 1e6 * seconds


def holds(figure: Figure, value: float, of_floor: float | None) -> bool:
    enough = figure.limit is None or (value >= figure.limit if figure.per_second else value <= figure.limit)
    return enough and (figure.share is None or (of_floor or 0) >= figure.share)


def child(script: str, *words: object) -> "Results | None":
    """Run one of the scripts beside this one and return the object it prints; `None` if it has nothing to say."""
    command = [sys.executable, str(HERE / script), *map(str, words)]
    # atomr prints a backtrace for each exception that an actor of its raises.
    errors = subprocess.DEVNULL if "atomr" in words else None
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, check=True, timeout=300)
    return json.loads(done.stdout)


def idle(count: int) -> Results:
    found = child("_actors_idle.py", count)
    assert found is not None
    return {
        **found,
        "bytes_per_actor_holds": float(str(found["bytes_per_actor"])) <= BYTES_PER_ACTOR,
        "idle_clean": found["tasks_left"] == 0 and found["dead_letters"] == 0,
    }


def others(name: str, rounds: int, *counts: int) -> Results:
    """The same of another framework; only its version is there, as `None`, when it is not installed."""
    found = child("_actors_others.py", name, rounds, *counts)
    if found is None:
        return {f"{name}_version": None}
    results: Results = {f"{name}_version": found["version"], f"{name}_tells_per_s": 1 / float(str(found["tell"]))}
    timed = [key for key in ("ask", "spawn", "restart") if key in found]
    results.update({f"{name}_{key}_us": 1e6 * float(str(found[key])) for key in timed})
    return {**results, f"{name}_bytes_per_actor": found["bytes"]}


def all_figures(options: argparse.Namespace) -> Results:
    scale = 100 if options.quick else 1
    rounds = 1 if options.quick else options.rounds
    results = machine()
    results.update(command=shlex.join(["python", *sys.argv]), clock=options.clock, rounds=rounds)
    for figure in FIGURES:
        if not options.only or figure.key in options.only:
            results.update(measure(figure, rounds, scale))
    if not options.only:
        results.update(idle(max(100, options.idle // scale)))
        results.update(others("pykka", min(rounds, 7), 1000 if options.quick else 20_000, 2_000 // scale, 200 // scale))
        results.update(others("atomr", min(rounds, 3), 1_000, 1_000 // scale, 200 // scale))
    return results


def main() -> None:
    options = arguments()
    _actors_clock.use(options.clock)
    # As in production, a failure's warning is made; what a terminal or a file then costs is not the actor core's.
    logging.basicConfig(level=logging.INFO, handlers=[logging.NullHandler()])
    results = all_figures(options)
    if options.json:
        print(json.dumps(results))
    else:
        table(results)


if __name__ == "__main__":
    main()
