"""What a client sees of an engine that dies: open streams, and the device process killed under them again and again.

For each seed, N streams generate greedily on the same prompts, once undisturbed and once while the device process is
killed (SIGKILL) at random moments. Each stream must be complete, with the tokens of the undisturbed run, each once;
where two tokens are nearly as likely as each other, computing in another batch may choose the other one: a text may
differ from such a place on, and only there (the margin rule). The table tells how many streams were whole, how long
each waited from a kill to its next token, and whether all pages came back.

    python benchmarks/chaos.py [--streams 32] [--tokens 128] [--kills 10] [--seeds 1] [--dtype float32] [--json]
"""

import argparse
import os
import random
import signal
import statistics
import sys
from collections.abc import Callable
from itertools import count

import trio
from _deployed import Deployed, chunks_of, deployed
from _serving import command_line, machine, print_json
from attrs import asdict, define, field, frozen

from atomr_trio.catalog import DEFAULT_MODEL
from atomr_trio.cli._bench_prompts import token_range
from atomr_trio.cli._bench_stats import percentile
from atomr_trio.core import InferenceError, SamplingParams, Serving

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
    seed: int
    streams: int
    kills: int
    complete: int
    identical: int
    within_margin: int
    errors: int
    waits_s: list[float]
    undisturbed_s: float
    disturbed_s: float
    pages_back: bool


async def listen(target: Deployed, prompt: tuple[int, ...], tokens: int, answer: Answer) -> None:
    sampling = SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True, logprobs=True)
    try:
        async with target.ask(prompt, sampling) as stream:
            async for chunk in chunks_of(stream):
                answer.ids += chunk.token_ids
                answer.logprobs += chunk.logprobs
                answer.times += [trio.current_time()] * len(chunk.token_ids)
    except InferenceError as error:
        answer.error = str(error)


async def run(target: Deployed, prompts: list[tuple[int, ...]], tokens: int) -> list[Answer]:
    answers = [Answer() for _ in prompts]
    async with trio.open_nursery() as nursery:
        for prompt, answer in zip(prompts, answers, strict=True):
            nursery.start_soon(listen, target, prompt, tokens, answer)
    return answers


async def until(condition: Callable[[], bool]) -> None:
    for _ in count():
        if condition():
            return
        await trio.sleep(0.01)


async def kill_often(target: Deployed, moments: list[float], killed: list[float]) -> None:
    """Kill the device process; each moment counts from when the one before was serving again."""
    for pause in moments:
        await until(lambda: target.runner.device_pid is not None and target.runner.loading is None)
        await trio.sleep(pause)
        pid = target.runner.device_pid
        if pid is not None:
            killed.append(trio.current_time())
            os.kill(pid, signal.SIGKILL)
            await until(lambda gone=pid: target.runner.device_pid != gone)


async def free_pages(target: Deployed) -> int:
    """Pages that nobody has, once nothing runs any more."""
    await run(target, [(1000,)], 1)
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


async def one_seed(target: Deployed, seed: int, options: argparse.Namespace) -> Result:
    rng = random.Random(seed)
    ids = token_range(target.device.vocab_size)
    prompts = [tuple(rng.choices(ids, k=rng.randint(5, 60))) for _ in range(options.streams)]
    pages = await free_pages(target)
    start = trio.current_time()
    wanted = await run(target, prompts, options.tokens)
    middle = trio.current_time()
    killed: list[float] = []
    async with trio.open_nursery() as nursery:
        # Most of the kills shall meet open streams, however fast the machine is.
        mean = (middle - start) / (options.kills + 1)
        nursery.start_soon(kill_often, target, [rng.uniform(0, 2 * mean) for _ in range(options.kills)], killed)
        got = await run(target, prompts, options.tokens)
        end = trio.current_time()
        nursery.cancel_scope.cancel(reason="all streams have ended")
    complete = [answer for answer in got if answer.error is None and len(answer.ids) == options.tokens]
    return Result(
        seed=seed,
        streams=options.streams,
        kills=len(killed),
        complete=len(complete),
        identical=sum(a.ids == b.ids for a, b in zip(wanted, got, strict=True)),
        within_margin=sum(same_up_to_ties(a, b) for a, b in zip(wanted, got, strict=True)),
        errors=sum(answer.error is not None for answer in got),
        waits_s=waits(got, killed),
        undisturbed_s=middle - start,
        disturbed_s=end - middle,
        pages_back=await free_pages(target) == pages,
    )


async def measure(options: argparse.Namespace) -> list[Result]:
    serving = Serving(max_concurrent=options.streams)
    results: list[Result] = []
    async with deployed(
        options.model, serving, max_restarts=10**6, dtype=options.dtype, kv_tokens=options.streams * 256
    ) as target:
        for seed in range(options.seeds):
            results.append(await one_seed(target, options.first_seed + seed, options))
            if not options.json:
                print(line(results[-1]), flush=True)
    return results


HEADING = (
    f"{'seed':>5} {'kills':>6} {'complete':>9} {'identical':>10} {'by margin':>10} {'errors':>7} {'pages back':>11}"
)
HEADING += f" {'wait p50':>9} {'p99 s':>7} {'undisturbed':>12} {'disturbed s':>12}"


def line(result: Result) -> str:
    p50 = statistics.median(result.waits_s) if result.waits_s else float("nan")
    p99 = percentile(result.waits_s, 99) if result.waits_s else float("nan")
    return (
        f"{result.seed:>5} {result.kills:>6} {result.complete:>6}/{result.streams:<2} {result.identical:>10} "
        f"{result.within_margin:>10} {result.errors:>7} {'yes' if result.pages_back else 'NO':>11} "
        f"{p50:>9.2f} {p99:>7.2f} {result.undisturbed_s:>12.1f} {result.disturbed_s:>12.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    about = machine()
    if not options.json:
        print(f"{about}\n{command_line()}\n\n{HEADING}")
    results = trio.run(measure, options)
    if options.json:
        print_json(about, rows=[asdict(result) for result in results])
    held = all(one.complete == one.streams == one.within_margin and one.pages_back for one in results)
    sys.exit(0 if held else "a stream was lost")


if __name__ == "__main__":
    main()
