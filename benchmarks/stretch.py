"""What a long prompt costs those who are being answered: the time between tokens of running streams, before and while.

Eight streams generate, in a cluster of this process (so that tokens can be told apart where several come at once). When
each has got so many tokens, one request with a long prompt arrives and asks for one token. The table compares the time
between tokens of the eight in the time from its arrival to its first token with the time before: means, medians and
99th percentiles over all tokens of all rounds, where n tokens that come at once took an n-th of the gap each; and the
longest gap between two chunks that anyone saw. Mean and median must hold: pieces of the prompt go with some of the
steps, so that a median alone would only say which kind of step there is more of.

    python benchmarks/stretch.py [--dtype auto] [--streams 8] [--prompt 1500] [--rounds 3] [--json]
"""

import argparse
import random
import sys

import trio
from _deployed import Deployed, chunks_of, deployed
from _serving import command_line, machine, print_json
from attrs import asdict, define, field, frozen

from atomr_trio.catalog import DEFAULT_MODEL
from atomr_trio.cli._bench_prompts import token_range
from atomr_trio.cli._bench_stats import percentile
from atomr_trio.core import SamplingParams, Serving

MUST_HOLD = 2.0


@define
class Watched:
    """The tokens of one stream: when each chunk came, and how many it brought; ``warm`` after ``before`` of them."""

    before: int
    warm: trio.Event = field(factory=trio.Event)
    chunks: list[tuple[float, int]] = field(factory=list)

    def take(self, tokens: int) -> None:
        if tokens:
            self.chunks.append((trio.current_time(), tokens))
        if self.tokens >= self.before:
            self.warm.set()

    @property
    def tokens(self) -> int:
        return sum(tokens for _, tokens in self.chunks)

    def between(self, start: float, end: float) -> list[tuple[float, int]]:
        """(gap, tokens) of the chunks that came in the window; the first chunk of all has no gap."""
        return [
            (after - before, tokens)
            for (before, _), (after, tokens) in zip(self.chunks, self.chunks[1:], strict=False)
            if start < after <= end
        ]


@frozen
class Window:
    """Milliseconds a token, and between two chunks."""

    tokens: int
    mean_ms: float
    median_ms: float
    p99_ms: float
    longest_ms: float

    @classmethod
    def of(cls, gaps: list[tuple[float, int]]) -> "Window":
        each = [1000 * gap / tokens for gap, tokens in gaps for _ in range(tokens)]
        longest = 1000 * max(gap for gap, _ in gaps)
        return cls(len(each), sum(each) / len(each), percentile(each, 50), percentile(each, 99), longest)


async def stream(served: Deployed, prompt: tuple[int, ...], tokens: int, watched: Watched) -> None:
    sampling = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True)
    async with served.ask(prompt, sampling) as answer:
        async for chunk in chunks_of(answer):
            watched.take(len(chunk.token_ids))


async def one_round(served: Deployed, options: argparse.Namespace, drawn: random.Random) -> tuple[list, list, float]:
    """Returns the gaps before and while, and how long the long prompt took."""
    ids = token_range(served.device.vocab_size)
    everyone = [Watched(options.before) for _ in range(options.streams)]
    async with trio.open_nursery() as nursery:
        for watched in everyone:
            nursery.start_soon(stream, served, tuple(drawn.choices(ids, k=32)), options.tokens, watched)
        for watched in everyone:
            await watched.warm.wait()
        began = max(watched.chunks[0][0] for watched in everyone)
        sent = trio.current_time()
        async with served.ask(tuple(drawn.choices(ids, k=options.prompt)), SamplingParams(max_tokens=1)) as answer:
            await answer.collect()
        first = trio.current_time()
        running = [watched for watched in everyone if watched.tokens < options.tokens]
        nursery.cancel_scope.cancel(reason="measured")
    if len(running) < options.streams:
        sys.exit("a stream ended before the long prompt was computed: raise --tokens")
    before = [gap for watched in everyone for gap in watched.between(began, sent)]
    meanwhile = [gap for watched in everyone for gap in watched.between(sent, first)]
    return before, meanwhile, first - sent


async def measure(options: argparse.Namespace) -> tuple[str, Window, Window, list[float]]:
    drawn = random.Random(0)
    before, meanwhile, took = [], [], []
    serving = Serving(max_concurrent=options.streams + 1)
    async with deployed(options.model, serving, dtype=options.dtype, load_format=options.load_format) as served:
        for number in range(options.warmup + options.rounds):
            found = await one_round(served, options, drawn)
            if number >= options.warmup:
                before += found[0]
                meanwhile += found[1]
                took.append(found[2])
        return served.description, Window.of(before), Window.of(meanwhile), took


def show(description: str, before: Window, meanwhile: Window, took: list[float], options: argparse.Namespace) -> None:
    print(f"{description}; {options.rounds} rounds, {options.streams} streams, a prompt of {options.prompt} tokens\n")
    print(f"{'':>10} {'tokens':>8} {'mean ms':>8} {'median ms':>10} {'p99 ms':>8} {'longest gap ms':>15}")
    for name, window in (("before", before), ("meanwhile", meanwhile)):
        numbers = f"{window.mean_ms:>8.1f} {window.median_ms:>10.1f} {window.p99_ms:>8.1f} {window.longest_ms:>15.1f}"
        print(f"{name:>10} {window.tokens:>8} {numbers}")
    names = ("mean_ms", 7), ("median_ms", 9), ("p99_ms", 7)
    ratios = " ".join(f"{getattr(meanwhile, name) / getattr(before, name):>{width}.2f}x" for name, width in names)
    print(f"{'stretched':>10} {'':>8} {ratios}    (target: mean and median at most {MUST_HOLD:g}x)")
    print(f"\nthe prompt was computed in {', '.join(f'{seconds:.2f}' for seconds in took)} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--load-format", default="auto")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=1500, help="tokens of the long prompt")
    parser.add_argument("--before", type=int, default=48, help="tokens of each stream before it arrives")
    parser.add_argument("--tokens", type=int, default=400, help="most tokens of each stream")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    about = machine()
    description, before, meanwhile, took = trio.run(measure, options)
    stretched = max(meanwhile.mean_ms / before.mean_ms, meanwhile.median_ms / before.median_ms)
    if options.json:
        values = {"before": asdict(before), "meanwhile": asdict(meanwhile), "prompt_s": took, "stretched": stretched}
        print_json(about, engine=description, holds=stretched <= MUST_HOLD, **values)
    else:
        print(f"{about}\n{command_line()}")
        show(description, before, meanwhile, took, options)
    if stretched > MUST_HOLD:
        sys.exit(f"mean and median of the time between tokens must stay below {MUST_HOLD:g} times")


if __name__ == "__main__":
    main()
