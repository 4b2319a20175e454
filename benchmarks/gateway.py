"""What the gateway costs: ours beside uvicorn with Starlette, from a token source that costs nothing, in one run.

Server and client have a core each. Both servers tell the same tokens in the same JSON; ours goes through all of it (the
HTTP driver, Quart, the actors of a request, the stream, the OpenAI shape), theirs through a generator. A round asks
each server, in turns:

* events: 64 streams, one write for each token, as fast as they go;
* tokens: the same, while the source makes 16 tokens at a time: ours merges what is pending;
* paced: 20 tokens a second in each stream, one at a time or 16, more and more streams until they fall behind: one in a
  hundred is more than a quarter of a second late at some time after all have begun;
* requests: short ones that are not streamed, 32 connections;
* first: the time to the first token, of a source that has it at once, beside 32 streams of 20 tokens a second.

    python benchmarks/gateway.py [--rounds 3] [--streams 64] [--only events tokens paced requests first] [--json]
"""

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from _gateway_load import Load, Pace, apply
from _serving import command_line, end_in_order, machine, print_json
from attrs import asdict, frozen

from atomr_trio.cli._bench_stats import percentile

SIDES = ("ours", "starlette")
PACE_S = 0.05
LATE_S = 0.25
MOST = 2048
RAMP_S = 10.0
TOKENS = 320
"""Of a paced stream: it lasts 16 seconds. All come within the first ten, so that to begin is not what is measured."""

AHEAD = 16


@contextmanager
def server(side: str, *, pace: float = 0.0, ahead: int = 1) -> Iterator[str]:
    core = [] if os.cpu_count() == 1 or sys.platform != "linux" else ["--core", "0"]
    command = [sys.executable, str(Path(__file__).with_name("_gateway_sides.py")), side]
    command += ["--pace", str(pace), "--ahead", str(ahead), *core]
    end_in_order()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(timeout=30)


@frozen
class Row:
    """One line of the table: a figure of each side; ``ratio`` is above 1 where ours is better."""

    what: str
    unit: str
    ours: float
    starlette: float
    ratio: float
    target: float | None


def in_turns(rounds: int, measure: Callable[[str], Load], **how: float) -> dict[str, list[Load]]:
    found: dict[str, list[Load]] = {side: [] for side in SIDES}
    for number in range(rounds):
        # Who comes first alternates: neither always has the cooler processor.
        for side in SIDES if number % 2 else SIDES[::-1]:
            with server(side, **how) as url:  # type: ignore[arg-type]
                measure(url)
                found[side].append(measure(url))
    return found


def row(
    what: str, unit: str, found: dict[str, list[Load]], figure: Callable[[Load], float], target: float | None
) -> Row:
    ours, theirs = (statistics.median(map(figure, found[side])) for side in SIDES)
    return Row(what, unit, ours, theirs, ours / theirs, target)


def events(options: argparse.Namespace) -> list[Row]:
    found = in_turns(options.rounds, lambda url: apply(url, options.streams, options.tokens, stream=True))
    name = f"{options.streams} streams, a write each"
    merged = statistics.median(load.tokens / load.events for load in found["ours"])
    return [
        row(name, "events/s", found, lambda load: load.events / load.seconds, 0.5),
        Row("… tokens in an event of ours", "", merged, 1.0, 1 / merged, None),
    ]


def tokens(options: argparse.Namespace) -> list[Row]:
    found = in_turns(options.rounds, lambda url: apply(url, options.streams, options.tokens, stream=True), ahead=AHEAD)
    name = f"{options.streams} streams, {AHEAD} at a time"
    return [row(name, "tokens/s", found, lambda load: load.tokens / load.seconds, 1.0)]


def paced(options: argparse.Namespace) -> list[Row]:
    return [
        paced_row(options, f"streams held at {1 / PACE_S:g} tokens/s", 1, 0.5),
        paced_row(options, f"… {AHEAD} at a time", AHEAD, 1.0),
    ]


def paced_row(options: argparse.Namespace, what: str, ahead: int, target: float) -> Row:
    ours, theirs = (statistics.median(streams_held(side, ahead) for _ in range(options.rounds)) for side in SIDES)
    return Row(what, "streams", ours, theirs, ours / theirs, target)


def streams_held(side: str, ahead: int) -> int:
    """The most streams that are not late: doubled until they are, then halved in between, to a tenth."""
    pace = Pace(PACE_S, ahead, RAMP_S)

    def keeps_up(count: int) -> bool:
        with server(side, pace=PACE_S, ahead=ahead) as url:
            load = apply(url, count, TOKENS, stream=True, pace=pace)
        return percentile(load.late_s, 99) < LATE_S

    held, most = 0, 128
    while most <= MOST and keeps_up(most):
        held, most = most, 2 * most
    while most <= MOST and most - held > most // 10:
        middle = (held + most) // 2
        held, most = (middle, most) if keeps_up(middle) else (held, middle)
    return held


def requests(options: argparse.Namespace) -> list[Row]:
    found = in_turns(options.rounds, lambda url: apply(url, 32, 1, stream=False, requests=50))
    return [row("short requests, 32 connections", "requests/s", found, lambda load: load.requests / load.seconds, 0.4)]


def first(options: argparse.Namespace) -> list[Row]:
    found = in_turns(options.rounds, first_tokens, pace=PACE_S)
    return [
        Row(f"first token, p{rank}", "ms", ours, theirs, theirs / ours, None)
        for rank in (50, 99)
        for ours, theirs in [
            [1000 * statistics.median(percentile(load.first_s, rank) for load in found[side]) for side in SIDES]
        ]
    ]


def first_tokens(url: str) -> Load:
    """Ask again and again, beside streams that run."""
    others = multiprocessing.Process(target=apply, args=(url, 32, TOKENS), kwargs={"stream": True})
    others.start()
    time.sleep(1)
    load = apply(url, 1, 1, stream=True, requests=300, pause_s=0.01)
    others.join()
    return load


PARTS = {"events": events, "tokens": tokens, "paced": paced, "requests": requests, "first": first}


HEADING = f"{'':>32} {'ours':>10} {'starlette':>10} {'':<11} {'ratio':>7} {'target':>8} {'holds':>6}"


def line(found: Row) -> str:
    text = f"{found.what:>32} {found.ours:>10.1f} {found.starlette:>10.1f} {found.unit:<11} {found.ratio:>6.2f}x"
    if found.target is not None:
        text += f" {'>= ' + format(found.target, 'g') + 'x':>8} {'yes' if found.ratio >= found.target else 'NO':>6}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=1000, help="of each stream")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    about = machine()
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {1})
    rows: list[Row] = []
    if not options.json:
        print(f"{about}\n{command_line()}\n\n{HEADING}", flush=True)
    for part in options.only:
        found = PARTS[part](options)
        rows += found
        if not options.json:
            print(*map(line, found), sep="\n", flush=True)
    if options.json:
        print_json(about, rows=[asdict(found) for found in rows])
    if any(found.target is not None and found.ratio < found.target for found in rows):
        sys.exit("a target is missed")


if __name__ == "__main__":
    main()
