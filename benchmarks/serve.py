"""What continuous batching is worth: tokens per second of one stream and of several, through the whole server.

Starts `atomr-trio serve` on a free port, opens N streams at once (N = 1, 8 by default), and lets each generate the same
number of tokens (end-of-sequence ignored). Prompts differ, so that nothing is shared. Each N is measured in turns, and
the table shows medians: the machine may be noisy, so trust the ratios.

    python benchmarks/serve.py [--dtype float32] [--streams 1 8] [--tokens 64] [--rounds 5] [--json]
"""

import argparse
import json
import statistics

import httpx2
import trio
from _serving import NAME, command_line, machine, print_json, start_ours
from attrs import asdict, frozen

PROMPT = "Write about the number {} and everything that comes to mind when you think about it, in one long paragraph."


@frozen
class Stream:
    """One answered stream: seconds from the request to its first token and to its last, and its tokens."""

    first: float
    last: float
    tokens: int


@frozen
class Round:
    """N streams at once. Rates are tokens per second, times are milliseconds."""

    streams: int
    tokens_per_s: float
    ttft_ms: float
    tpot_ms: float


async def one_stream(client: httpx2.AsyncClient, number: int, tokens: int, results: list[Stream]) -> None:
    body = {
        "model": NAME,
        "messages": [{"role": "user", "content": PROMPT.format(number)}],
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    started, first, counted = trio.current_time(), 0.0, 0
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            event = json.loads(line.removeprefix("data: "))
            if event["choices"] and event["choices"][0]["delta"].get("content"):
                first = first or trio.current_time()
            if event.get("usage"):
                counted = event["usage"]["completion_tokens"]
    results.append(Stream(first - started, trio.current_time() - started, counted))


async def one_round(client: httpx2.AsyncClient, streams: int, tokens: int, salt: int) -> Round:
    results: list[Stream] = []
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(streams):
            nursery.start_soon(one_stream, client, salt * 1000 + number, tokens, results)
    elapsed = trio.current_time() - started
    assert all(stream.tokens == tokens for stream in results), results
    return Round(
        streams,
        sum(stream.tokens for stream in results) / elapsed,
        1000 * statistics.median(stream.first for stream in results),
        1000 * statistics.median((stream.last - stream.first) / (stream.tokens - 1) for stream in results),
    )


async def measure(url: str, options: argparse.Namespace) -> list[Round]:
    rounds: list[Round] = []
    async with httpx2.AsyncClient(base_url=url, timeout=600) as client:
        for salt in range(options.rounds + 1):
            for streams in options.streams:
                measured = await one_round(client, streams, options.tokens, salt)
                if salt:  # the first turn of each warms up
                    rounds.append(measured)
    return [median_of([r for r in rounds if r.streams == streams]) for streams in options.streams]


def median_of(rounds: list[Round]) -> Round:
    values = (statistics.median(values) for values in zip(*(list(asdict(r).values())[1:] for r in rounds), strict=True))
    return Round(rounds[0].streams, *values)


def show(rounds: list[Round], options: argparse.Namespace) -> None:
    if options.json:
        print_json(machine(), rounds=[asdict(r) for r in rounds])
        return
    print(f"{machine()}\n{command_line()}   (medians of {options.rounds} rounds of {options.tokens} tokens)\n")
    print(f"{'streams':>8} {'tokens/s':>10} {'against 1':>10} {'TTFT ms':>9} {'TPOT ms':>9}")
    for r in rounds:
        ratio = r.tokens_per_s / rounds[0].tokens_per_s
        print(f"{r.streams:>8} {r.tokens_per_s:>10.1f} {ratio:>9.2f}x {r.ttft_ms:>9.0f} {r.tpot_ms:>9.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=None)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    server = start_ours("--dtype", options.dtype, *([options.model] if options.model else []))
    try:
        show(trio.run(measure, server.url, options), options)
    finally:
        server.stop()


if __name__ == "__main__":
    main()
