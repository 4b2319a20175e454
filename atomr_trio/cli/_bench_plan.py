"""A benchmark from its plan to its report."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial

import click
from attrs import frozen
from rich.console import Console

from atomr_trio.core import SamplingParams

from ._bench_load import Outcome, Target, apply_load
from ._bench_local import copy_bandwidth, open_local
from ._bench_prompts import Prompt, PromptMaker, token_range
from ._bench_roofline import ModelBytes, fraction_of_roofline
from ._bench_show import Report, load_name
from ._bench_stats import Goals, LoadPoint, Summary, summarize
from ._bench_url import Remote, open_url
from ._model import ModelOptions

__all__ = ["Plan", "measure_local", "measure_url"]

_LEAST_REQUESTS = 8
_RATE_REQUESTS = 32
_RATE_WARMUP = 4


@frozen(kw_only=True)
class Plan:
    """What is measured, apart from who serves it.

    Args:
        prompt_tokens: of each prompt.
        output_tokens: of each answer.
        shared_prefix: how many tokens all prompts share.
        loads: one row of the table each.
        requests: of each load; ``None`` takes as many as make a median worth reading.
        warmup: requests before each load that do not count; ``None`` takes one for each stream.
        ignore_eos: generate all tokens.
        seed: of prompts and arrivals.
        goals: of the goodput.
        bandwidth: of the memory in bytes a second; ``None``: to be measured.
    """

    prompt_tokens: int
    output_tokens: int
    shared_prefix: int
    loads: tuple[LoadPoint, ...]
    requests: int | None
    warmup: int | None
    ignore_eos: bool
    seed: int
    goals: Goals
    bandwidth: float | None

    @property
    def streams(self) -> int:
        """The most requests that must run at once; those that arrive at random may queue."""
        return max((int(load.value) for load in self.loads if load.kind == "concurrency"), default=1)

    @property
    def sampling(self) -> SamplingParams:
        """Of every request: greedy."""
        return SamplingParams(temperature=0.0, max_tokens=self.output_tokens, ignore_eos=self.ignore_eos)

    def requests_of(self, load: LoadPoint) -> int:
        """How many requests make a row."""
        usual = max(_LEAST_REQUESTS, 4 * int(load.value)) if load.kind == "concurrency" else _RATE_REQUESTS
        return self.requests or usual

    def warmup_of(self, load: LoadPoint) -> int:
        """How many of the same load go before."""
        usual = int(load.value) if load.kind == "concurrency" else _RATE_WARMUP
        return usual if self.warmup is None else self.warmup

    def prompts(self, ids: range | None) -> Iterator[Prompt]:
        """Yield prompts of token ids, or of words, without end."""
        maker = PromptMaker(tokens=self.prompt_tokens, shared=self.shared_prefix, seed=self.seed, ids=ids)
        return maker.prompts()

    def report(self, target: str, rows: list[Summary], bandwidth: float | None = None) -> Report:
        """Return what is shown."""
        return Report(
            target=target,
            prompt_tokens=self.prompt_tokens,
            shared_prefix=min(self.shared_prefix, self.prompt_tokens),
            output_tokens=self.output_tokens,
            seed=self.seed,
            bandwidth=bandwidth,
            rows=rows,
        )


async def measure_local(plan: Plan, options: ModelOptions) -> Report:
    """Serve a model and measure it.

    Raises:
        InferenceError: it cannot be served, or a request of the warm-up failed.
    """
    bandwidth = plan.bandwidth
    if bandwidth is None and options.runtime == "jax":
        # Before the model is there: now nobody else uses the memory.
        with _saying("measuring the memory"):
            bandwidth = await copy_bandwidth()
    async with open_local(options, plan.sampling, plan.streams) as target:
        target.check(plan.prompt_tokens)
        prompts = plan.prompts(None if target.vocabulary is None else token_range(target.vocabulary))
        rows = [await _row(plan, target, prompts, load, target.reads, bandwidth) for load in plan.loads]
        described = f"{target.name} ({target.description})" if target.description else target.name
        return plan.report(described, rows, bandwidth if target.reads else None)


async def measure_url(plan: Plan, remote: Remote, as_text: bool) -> Report:
    """Measure a server; ``as_text`` sends words and not token ids.

    Raises:
        InferenceError: the server cannot be had, or a request of the warm-up failed.
    """
    prompts = plan.prompts(None if as_text else token_range(None))
    async with open_url(remote) as target:
        rows = [await _row(plan, target, prompts, load, None, None) for load in plan.loads]
        return plan.report(f"{target.model} at {remote.url} ({remote.endpoint})", rows)


async def _row(
    plan: Plan,
    target: Target,
    prompts: Iterator[Prompt],
    load: LoadPoint,
    reads: ModelBytes | None,
    bandwidth: float | None,
) -> Summary:
    apply = partial(apply_load, target, prompts, load, seed=plan.seed)
    with _saying(f"{load_name(load)}: warming up"):
        warmed = await apply(requests=plan.warmup_of(load))
    if warmed.failures:
        raise warmed.failures[0]
    with _saying(f"{load_name(load)}: measuring {plan.requests_of(load)} requests"):
        outcome = await apply(requests=plan.requests_of(load))
    _tell_failures(load, outcome)
    share = fraction_of_roofline(outcome.samples, reads, bandwidth) if reads and bandwidth else None
    failed, seconds = len(outcome.failures), outcome.seconds
    return summarize(load, outcome.samples, failed=failed, duration=seconds, goals=plan.goals, roofline=share)


def _tell_failures(load: LoadPoint, outcome: Outcome) -> None:
    if outcome.failures:
        many = len(outcome.failures)
        click.echo(f"Error: {load_name(load)}: {many} requests failed, the first: {outcome.failures[0]}", err=True)


@contextmanager
def _saying(what: str) -> Generator[None]:
    """Show on a terminal what takes its time."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield
