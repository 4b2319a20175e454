"""What the prefix cache is worth: the time to the first token of a long prompt, cold and with its beginning cached.

Starts `atomr-trio serve` on a free port and asks, in turns, for one token after a prompt that nobody has asked before
(cold), after the same prompt with another end of one page (cached), and after the whole prompt once more (again). With
one token the end of the answer is its first token. The table shows medians; the machine may be noisy, so trust the
ratios.

    python benchmarks/prefix.py [--dtype float32] [--prompt 2000] [--rounds 5] [--json]
"""

import argparse
import random
import statistics
import sys

import httpx2
import trio
from _serving import NAME, command_line, machine, print_json, start_ours
from attrs import asdict, frozen

TAIL = 16
# Within the vocabulary of every model, and no special tokens.
TOKEN_IDS = range(1000, 30_000)
MUST_HOLD = 10.0


@frozen
class Case:
    """Times to the first token in milliseconds, and how many prompt tokens were found in the cache."""

    name: str
    median_ms: float
    fastest_ms: float
    slowest_ms: float
    cached_tokens: int


async def first_token(client: httpx2.AsyncClient, prompt: list[int]) -> tuple[float, int]:
    started = trio.current_time()
    body = {"model": NAME, "prompt": prompt, "max_tokens": 1, "temperature": 0, "ignore_eos": True}
    response = await client.post("/v1/completions", json=body)
    seconds = trio.current_time() - started
    response.raise_for_status()
    usage = response.json()["usage"]
    assert usage["prompt_tokens"] == len(prompt), usage
    return 1000 * seconds, usage["prompt_tokens_details"]["cached_tokens"]


async def measure(url: str, options: argparse.Namespace) -> list[Case]:
    drawn = random.Random(0)
    times: dict[str, list[float]] = {"cold": [], "cached": [], "again": []}
    found: dict[str, set[int]] = {name: set() for name in times}
    async with httpx2.AsyncClient(base_url=url, timeout=600) as client:
        for number in range(options.warmup + options.rounds):
            prompt = drawn.choices(TOKEN_IDS, k=options.prompt)
            other_end = prompt[:-TAIL] + drawn.choices(TOKEN_IDS, k=TAIL)
            for name, asked in (("cold", prompt), ("cached", other_end), ("again", prompt)):
                took, cached = await first_token(client, asked)
                if number >= options.warmup:  # the first turns compile what later ones run
                    times[name].append(took)
                    found[name].add(cached)
    assert found["cold"] == {0}, found
    assert min(found["cached"]) >= options.prompt - 3 * TAIL, found
    return [
        Case(name, statistics.median(taken), min(taken), max(taken), min(found[name])) for name, taken in times.items()
    ]


def show(cases: list[Case], options: argparse.Namespace) -> None:
    if options.json:
        print_json(machine(), cases=[asdict(case) for case in cases])
        return
    print(f"{machine()}\n{command_line()}   (medians of {options.rounds} prompts of {options.prompt} tokens)\n")
    print(f"{'':>8} {'TTFT ms':>9} {'fastest':>9} {'slowest':>9} {'cached tokens':>14} {'sooner':>8}")
    for case in cases:
        spread = f"{case.median_ms:>9.0f} {case.fastest_ms:>9.0f} {case.slowest_ms:>9.0f}"
        print(f"{case.name:>8} {spread} {case.cached_tokens:>14} {cases[0].median_ms / case.median_ms:>7.1f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--prompt", type=int, default=2000, help="tokens of the prompt")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    server = start_ours("--dtype", options.dtype, *([options.model] if options.model else []))
    try:
        cases = trio.run(measure, server.url, options)
    finally:
        server.stop()
    show(cases, options)
    if cases[0].median_ms < MUST_HOLD * cases[1].median_ms:
        sys.exit(f"a cached prompt must answer {MUST_HOLD:g} times sooner")


if __name__ == "__main__":
    main()
