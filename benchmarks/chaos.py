"""What a client sees of an engine that fails: open streams, and the device process failing under them again and again.

For each seed, N streams generate on the same prompts, once undisturbed and once while the device process is killed from
outside at random moments (``--fault kill``), or fails by itself at random steps: its context is poisoned, a step hangs,
memory runs out, a frame is torn; ``mix`` is any of them, slow steps and frames that come twice included. Each stream
must be complete, with the tokens of the undisturbed run, each once; where two tokens are nearly as likely as each
other, computing in another batch may choose the other one: a text may differ from such a place on, and only there (the
margin rule). The table tells how many streams were whole, how long each waited from a kill to its next token (of faults
at a step: the longest pause of each stream), and whether anything was left: pages, processes, file descriptors, tasks,
temporary files, memory of the server (it may have 32 MiB more).

With ``--temperature 0.8`` each stream has a seed, and the table says how many went on to the same text, position by
position.

    python benchmarks/chaos.py [--fault kill poison hang oom mix] [--streams 32] [--tokens 128] [--times 10] [--seeds 1]
"""

import argparse
import gc
import os
import random
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import trio
from _deployed import Deployed, chunks_of, deployed
from _serving import command_line, machine, print_json
from attrs import asdict, define, field, frozen

from atomr_trio.catalog import DEFAULT_MODEL
from atomr_trio.cli._bench_prompts import token_range
from atomr_trio.cli._bench_stats import percentile
from atomr_trio.core import InferenceError, SamplingParams, Serving

FAULTS = {
    "kill": [],
    "poison": ["poison"],
    "hang": ["hang"],
    "oom": ["oom"],
    "mix": ["kill", "poison", "hang", "oom", "torn", "garbage", "slow", "duplicate"],
}
HANGS_S = 3.0
"""A step that takes longer counts as a hang."""

ALLOWED_MIB = 32

MARGIN = 0.05
"""Natural logarithms between the two best tokens below which either may be drawn."""


@define
class Answer:
    """What one client received, and when."""

    ids: list[int] = field(factory=list)
    logprobs: list[float] = field(factory=list)
    times: list[float] = field(factory=list)
    error: str | None = None


@frozen
class Result:
    """One seed; ``waits_s``: from each kill to the next token, or the longest pause of each stream."""

    fault: str
    seed: int
    streams: int
    restarts: int
    complete: int
    identical: int
    within_margin: int
    errors: int
    waits_s: list[float]
    undisturbed_s: float
    disturbed_s: float
    pages_back: bool
    left: str

    @property
    def holds(self) -> bool:
        return self.complete == self.streams == self.within_margin and self.pages_back and not self.left


@frozen
class Case:
    """The requests of a seed, and what they got undisturbed."""

    prompts: list[tuple[int, ...]]
    sampling: list[SamplingParams]
    wanted: list[Answer]
    took_s: float
    free_pages: int


async def listen(target: Deployed, prompt: tuple[int, ...], sampling: SamplingParams, answer: Answer) -> None:
    try:
        async with target.ask(prompt, sampling) as stream:
            async for chunk in chunks_of(stream):
                answer.ids += chunk.token_ids
                answer.logprobs += chunk.logprobs
                answer.times += [trio.current_time()] * len(chunk.token_ids)
    except InferenceError as error:
        answer.error = str(error)


async def run(target: Deployed, prompts: list[tuple[int, ...]], sampling: list[SamplingParams]) -> list[Answer]:
    answers = [Answer() for _ in prompts]
    async with trio.open_nursery() as nursery:
        for prompt, params, answer in zip(prompts, sampling, answers, strict=True):
            nursery.start_soon(listen, target, prompt, params, answer)
    return answers


async def until(condition: Callable[[], bool]) -> None:
    for _ in count():
        if condition():
            return
        await trio.sleep(0.01)


async def stands_by(target: Deployed) -> None:
    """Wait until there is a spare process and it has nothing more to do."""
    used = -1
    while True:
        await trio.sleep(1)
        pid = target.runner.spare_pid
        before, used = used, -1 if pid is None else cpu_ticks(pid)
        if pid is not None and used == before:
            return


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


async def kill_often(target: Deployed, moments: list[float], killed: list[float], *, settled: bool) -> None:
    """Kill the device process; each moment counts from when the one before was serving again.

    With ``settled``, also from when the next spare process stood by.
    """
    for pause in moments:
        await until(lambda: target.runner.device_pid is not None and target.runner.loading is None)
        if settled:
            await stands_by(target)
        await trio.sleep(pause)
        pid = target.runner.device_pid
        if pid is not None:
            killed.append(trio.current_time())
            os.kill(pid, signal.SIGKILL)
            await until(lambda gone=pid: target.runner.device_pid != gone)


async def free_pages(target: Deployed) -> int:
    """Pages that nobody has, once nothing runs any more."""
    await run(target, [(1000,)], [SamplingParams(max_tokens=1)])
    step = target.runner.last_step
    assert step is not None
    return step.free_pages


def waits(answers: list[Answer], killed: list[float]) -> list[float]:
    """Seconds from each kill to the next token, of each stream that was open and got one before the next kill."""
    found: list[float] = []
    for answer in answers:
        for kill, following in zip(killed, [*killed[1:], float("inf")], strict=True):
            after = next((time for time in answer.times if time > kill), None)
            if after is not None and after < following:
                found.append(after - kill)
    return found


def same_up_to_ties(wanted: Answer, got: Answer) -> bool:
    """The margin rule: from the first place where they differ on, if both tokens were about as likely there."""
    for place, (one, other) in enumerate(zip(wanted.ids, got.ids, strict=False)):
        if one != other:
            return abs(wanted.logprobs[place] - got.logprobs[place]) < MARGIN
    return len(wanted.ids) == len(got.ids)


def pauses(answers: list[Answer]) -> list[float]:
    """The longest pause between two tokens of each stream, in seconds."""
    return [max(b - a for a, b in pairwise(answer.times)) for answer in answers if len(answer.times) > 1]


def draw(seed: int, ids: range, options: argparse.Namespace) -> tuple[list[tuple[int, ...]], list[SamplingParams]]:
    rng = random.Random(seed)
    prompts = [tuple(rng.choices(ids, k=rng.randint(5, 60))) for _ in range(options.streams)]
    sampling = [
        SamplingParams(
            max_tokens=options.tokens,
            temperature=options.temperature,
            seed=seed * 1000 + number,
            ignore_eos=True,
            logprobs=True,
        )
        for number in range(options.streams)
    ]
    return prompts, sampling


async def undisturbed(options: argparse.Namespace) -> list[Case]:
    cases: list[Case] = []
    async with deployed(options.model, **common(options)) as target:
        for seed in seeds(options):
            prompts, sampling = draw(seed, token_range(target.device.vocab_size), options)
            # Once for the programs: the second one is what an engine takes that has run for a while.
            await run(target, prompts, sampling)
            start = trio.current_time()
            wanted = await run(target, prompts, sampling)
            cases.append(Case(prompts, sampling, wanted, trio.current_time() - start, await free_pages(target)))
    return cases


async def disturbed(fault: str, seed: int, case: Case, options: argparse.Namespace) -> Result:
    before = Held.now()
    planned = {"seed": seed, "kinds": FAULTS[fault], "times": options.times, "seconds": 1.0}
    planned["every"] = max(4, options.tokens // max(1, options.times))
    faults = None if fault == "kill" else planned
    async with deployed(
        options.model, spare=options.spare, step_timeout=HANGS_S, faults=faults, **common(options)
    ) as target:
        rng, killed = random.Random(seed), list[float]()
        async with trio.open_nursery() as nursery:
            if fault == "kill":
                # Most of the kills shall meet open streams, however fast the machine is.
                mean = case.took_s / (options.times + 1)
                moments = [rng.uniform(0, 2 * mean) for _ in range(options.times)]
                if options.settled:
                    await stands_by(target)
                nursery.start_soon(partial(kill_often, settled=options.settled), target, moments, killed)
            start = trio.current_time()
            got = await run(target, case.prompts, case.sampling)
            end = trio.current_time()
            nursery.cancel_scope.cancel(reason="all streams have ended")
        restarts = target.runner.sessions - 1
        pages_back = await free_pages(target) == case.free_pages
    complete = [answer for answer in got if answer.error is None and len(answer.ids) == options.tokens]
    pairs = list(zip(case.wanted, got, strict=True))
    return Result(
        fault=fault,
        seed=seed,
        streams=options.streams,
        restarts=restarts,
        complete=len(complete),
        identical=sum(a.ids == b.ids for a, b in pairs),
        within_margin=sum(same_up_to_ties(a, b) for a, b in pairs),
        errors=sum(answer.error is not None for answer in got),
        waits_s=waits(got, killed) if fault == "kill" else pauses(got),
        undisturbed_s=case.took_s,
        disturbed_s=end - start,
        pages_back=pages_back,
        left=Held.now().beyond(before),
    )


@frozen
class Held:
    """What this process has."""

    processes: int
    descriptors: int
    tasks: int
    files: int
    mib: int

    @classmethod
    def now(cls) -> "Held":
        gc.collect()
        children = sum(len(task.read_text().split()) for task in Path("/proc/self/task").glob("*/children"))
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            children,
            len(os.listdir("/proc/self/fd")),
            trio.lowlevel.current_statistics().tasks_living,
            sum(1 for _ in Path(tempfile.gettempdir()).rglob("*")),
            pages * os.sysconf("SC_PAGE_SIZE") // 2**20,
        )

    def beyond(self, before: "Held") -> str:
        """Say what is more than before; memory may grow by what an allocator keeps for itself."""
        more = {name: getattr(self, name) - value for name, value in asdict(before).items()}
        more["mib"] -= ALLOWED_MIB
        return ", ".join(f"{count} {name}" for name, count in more.items() if count > 0)


def common(options: argparse.Namespace) -> dict[str, Any]:
    serving = Serving(max_concurrent=options.streams)
    # A stream of a death is one death more: here it is to be survived as often as it happens.
    return {
        "serving": serving,
        "max_restarts": 10**6,
        "dtype": options.dtype,
        "kv_tokens": options.streams * 256,
        "kept_mib": options.kept_mib,
    }


def seeds(options: argparse.Namespace) -> range:
    return range(options.first_seed, options.first_seed + options.seeds)


async def measure(options: argparse.Namespace) -> list[Result]:
    results: list[Result] = []
    cases = await undisturbed(options)
    for fault in options.fault:
        for seed, case in zip(seeds(options), cases, strict=True):
            results.append(await disturbed(fault, seed, case, options))
            if not options.json:
                print(line(results[-1]), flush=True)
    return results


HEADING = f"{'fault':>7} {'seed':>5} {'restarts':>9} {'complete':>9} {'identical':>10} {'by margin':>10} {'errors':>7}"
HEADING += f" {'pages back':>11} {'wait p50':>9} {'p99 s':>7} {'undisturbed':>12} {'disturbed s':>12}  left"


def line(result: Result) -> str:
    p50 = statistics.median(result.waits_s) if result.waits_s else float("nan")
    p99 = percentile(result.waits_s, 99) if result.waits_s else float("nan")
    pages = "yes" if result.pages_back else "NO"
    return (
        f"{result.fault:>7} {result.seed:>5} {result.restarts:>9} {result.complete:>6}/{result.streams:<2} "
        f"{result.identical:>10} {result.within_margin:>10} {result.errors:>7} {pages:>11} "
        f"{p50:>9.2f} {p99:>7.2f} {result.undisturbed_s:>12.1f} {result.disturbed_s:>12.1f}  {result.left or 'nothing'}"
    )


def summary(results: list[Result]) -> list[str]:
    lines: list[str] = []
    for fault in dict.fromkeys(result.fault for result in results):
        mine = [result for result in results if result.fault == fault]
        waited = [wait for result in mine for wait in result.waits_s]
        streams = sum(result.streams for result in mine)
        lines.append(
            f"{fault:>7}: {len(mine)} seeds, {sum(result.restarts for result in mine)} restarts, "
            f"{sum(result.complete for result in mine)}/{streams} complete, "
            f"{sum(result.identical for result in mine)} identical, "
            f"{sum(result.within_margin for result in mine)} by the margin rule; wait p50 "
            f"{statistics.median(waited) if waited else float('nan'):.2f} s, p99 {percentile(waited, 99):.2f} s"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--fault", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    parser.add_argument("--times", type=int, default=10, help="faults of each seed")
    parser.add_argument("--spare", default="auto", choices=["auto", "none", "imported", "loaded"])
    parser.add_argument("--settled", action="store_true", help="kill only where a spare process stands by")
    parser.add_argument("--kept-mib", type=int, default=256, help="memory for pages that outlive the process")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    about = machine()
    if not options.json:
        print(f"{about}\n{command_line()}\n\n{HEADING}")
    with tempfile.TemporaryDirectory() as room:
        # The children inherit it: whatever anybody leaves is found here.
        os.environ["TMPDIR"] = tempfile.tempdir = room
        results = trio.run(measure, options)
    if options.json:
        print_json(about, rows=[asdict(result) for result in results])
    else:
        print("", *summary(results), sep="\n")
    # A drawn token may be another one wherever numbers differ in the last place: then the share is told, and no more.
    held = all(one.holds or (options.temperature and one.complete == one.streams) for one in results)
    sys.exit(0 if held else "a stream was lost, or something was left")


if __name__ == "__main__":
    main()
