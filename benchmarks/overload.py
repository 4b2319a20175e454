"""More than fits: many mixed requests at once on a KV pool and a queue that are far too small for them.

The requests differ in everything: prompts of 5 to 600 tokens, answers of up to 200, greedy and sampled (seeded), with
several priorities, and some whose client leaves in the middle. Those that the bounded queue refuses come again after
the time they are told. In the end each must have ended right: finish reason and number of tokens as asked for, and the
tokens of those that are checked (a sample of them, in float32) those that the same request gets when it is alone. And
nothing may be left: as many free pages as in the beginning, nobody running, nobody waiting.

    python benchmarks/overload.py [--requests 200] [--kv-tokens 1600] [--check 20] [--seed 0] [--json]
"""

import argparse
import random
import sys
from collections import Counter

import trio
from _deployed import Deployed, deployed
from _serving import command_line, machine, print_json
from attrs import define, field, frozen

from atomr_trio.catalog import DEFAULT_MODEL
from atomr_trio.cli._bench_prompts import token_range
from atomr_trio.core import Backpressure, FinishReason, SamplingParams, Serving, Tokens

TRIES = 10_000


@frozen
class Wanted:
    """One request; ``leave_after``: the client leaves after so many tokens, ``None``: it stays."""

    number: int
    prompt: tuple[int, ...]
    sampling: SamplingParams
    priority: int
    leave_after: int | None


@define
class Tally:
    """What happened."""

    answers: dict[int, Tokens] = field(factory=dict)
    left: list[int] = field(factory=list)
    refused: int = 0
    most_waiting: int = 0


def draw(number: int, ids: range, options: argparse.Namespace) -> Wanted:
    drawn = random.Random(f"{options.seed} {number}")
    tokens = drawn.randint(1, options.output)
    sampled = {"temperature": 0.8, "top_p": 0.95, "seed": number} if drawn.random() < 0.3 else {"temperature": 0.0}
    return Wanted(
        number,
        tuple(drawn.choices(ids, k=drawn.randint(5, options.prompt))),
        SamplingParams(max_tokens=tokens, ignore_eos=True, **sampled),
        drawn.choice((-1, 0, 0, 0, 1)),
        drawn.randint(0, tokens - 1) if drawn.random() < 0.1 else None,
    )


async def answer(served: Deployed, wanted: Wanted, tally: Tally) -> None:
    for _ in range(TRIES):
        try:
            await attempt(served, wanted, tally)
        except Backpressure as refused:
            tally.refused += 1
            await trio.sleep(refused.retry_after or 1)
        else:
            return
    raise AssertionError("refused for ever")


async def attempt(served: Deployed, wanted: Wanted, tally: Tally) -> None:
    async with served.ask(wanted.prompt, wanted.sampling, wanted.priority) as stream:
        if wanted.leave_after is None:
            tally.answers[wanted.number] = await stream.collect()
            return
        await stream.wait_started()
        while len(stream.tokens.token_ids) < wanted.leave_after:
            await stream.receive()
        if stream.error is not None:
            raise stream.error
        tally.left.append(wanted.number)


async def watch(served: Deployed, tally: Tally) -> None:
    while True:
        step = served.runner.last_step
        tally.most_waiting = max(tally.most_waiting, step.waiting if step else 0)
        await trio.sleep(0.01)


async def at_rest(served: Deployed, ids: range) -> tuple[int, int, int]:
    """(free pages, running, waiting) as the last step of a short request that is alone says."""
    async with served.ask(tuple(ids[:5]), SamplingParams(max_tokens=1, temperature=0.0)) as stream:
        await stream.collect()
    step = served.runner.last_step
    assert step is not None
    return step.free_pages, step.running, step.waiting


def wrong_ends(requests: list[Wanted], tally: Tally) -> list[str]:
    wrong = []
    for wanted in requests:
        if wanted.number in tally.left:
            continue
        tokens = tally.answers.get(wanted.number)
        if tokens is None or tokens.finish_reason is not FinishReason.LENGTH:
            wrong.append(f"request {wanted.number} ended with {tokens and tokens.finish_reason}")
        elif not len(tokens.token_ids) == tokens.usage.output_tokens == wanted.sampling.max_tokens:
            wrong.append(f"request {wanted.number} has {len(tokens.token_ids)} of {wanted.sampling.max_tokens} tokens")
        elif tokens.usage.input_tokens != len(wanted.prompt):
            wrong.append(f"request {wanted.number} counts {tokens.usage.input_tokens} prompt tokens")
    return wrong


async def differing(served: Deployed, requests: list[Wanted], tally: Tally, most: int) -> tuple[int, list[str]]:
    """Ask some of them again, one by one: (how many, which had other tokens)."""
    checked = [wanted for wanted in requests if wanted.number in tally.answers][:most]
    found = []
    for wanted in checked:
        async with served.ask(wanted.prompt, wanted.sampling) as stream:
            alone = (await stream.collect()).token_ids
        if alone != tally.answers[wanted.number].token_ids:
            kind = "greedy" if wanted.sampling.temperature == 0 else "sampled"
            found.append(f"request {wanted.number} ({kind}) has other tokens than alone")
    return len(checked), found


async def measure(options: argparse.Namespace) -> dict[str, object]:
    serving = Serving(max_concurrent=options.concurrent, queue_capacity=options.queue, queue_timeout=3600)
    config = {"dtype": options.dtype, "load_format": options.load_format, "kv_tokens": options.kv_tokens}
    async with deployed(options.model, serving, **config) as served:
        ids = token_range(served.device.vocab_size)
        requests = [draw(number, ids, options) for number in range(options.requests)]
        before, started, tally = await at_rest(served, ids), trio.current_time(), Tally()
        async with trio.open_nursery() as watching:
            watching.start_soon(watch, served, tally)
            async with trio.open_nursery() as clients:
                for wanted in requests:
                    clients.start_soon(answer, served, wanted, tally)
            watching.cancel_scope.cancel(reason="all have ended")
        seconds = trio.current_time() - started
        after = await at_rest(served, ids)
        step = served.runner.last_step
        checked, other = await differing(served, requests, tally, options.check)
        wrong = [*wrong_ends(requests, tally), *other]
        if before != after:
            wrong.append(f"(free pages, running, waiting) were {before} and are {after}")
        return {
            "engine": served.description,
            "requests": len(requests),
            "answered": len(tally.answers),
            "left": len(tally.left),
            "sampled": sum(wanted.sampling.temperature != 0 for wanted in requests),
            "priorities": dict(sorted(Counter(wanted.priority for wanted in requests).items())),
            "refused_and_came_again": tally.refused,
            "most_waiting_in_the_engine": tally.most_waiting,
            "preemptions": step.preemptions if step else 0,
            "wanted_kv_tokens": sum(len(each.prompt) + (each.sampling.max_tokens or 0) for each in requests),
            "kv_tokens": served.device.num_pages * served.device.page_size,
            "free_pages_before": before[0],
            "free_pages_after": after[0],
            "checked_alone": checked,
            "seconds": round(seconds, 1),
            "wrong": wrong,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--load-format", default="auto")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--prompt", type=int, default=600, help="longest prompt in tokens")
    parser.add_argument("--output", type=int, default=200, help="longest answer in tokens")
    parser.add_argument("--kv-tokens", type=int, default=1600)
    parser.add_argument("--concurrent", type=int, default=32, help="requests that the engine takes at once")
    parser.add_argument("--queue", type=int, default=64, help="requests that may wait beyond those")
    parser.add_argument("--check", type=int, default=20, help="requests that are asked again, alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    about = machine()
    results = trio.run(measure, options)
    if options.json:
        print_json(about, **results)
    else:
        print(f"{about}\n{command_line()}\n")
        for name, value in results.items():
            print(f"{name.replace('_', ' '):>28}  {value}")
    if results["wrong"]:
        sys.exit("not all ended right")


if __name__ == "__main__":
    main()
