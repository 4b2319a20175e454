"""Puts load on a target: a fixed number of streams that are always busy, or arrivals at random times."""

import random
from collections.abc import Iterable
from itertools import islice
from typing import Protocol

import trio
from attrs import define, field

from atomr_trio.core import InferenceError

from ._bench_prompts import Prompt
from ._bench_stats import LoadPoint, Sample

__all__ = ["Outcome", "Recorder", "Target", "apply_load"]


class Target(Protocol):
    """What is measured."""

    async def ask(self, prompt: Prompt, /) -> Sample:
        """Send one request and read its answer to the end.

        Raises:
            InferenceError: it was not answered.
        """
        ...


@define
class Recorder:
    """Takes the times of one request as it happens."""

    _sent: float = field(factory=trio.current_time)
    _times: list[float] = field(factory=list[float])
    _ended: float | None = None
    _first_tokens: int = 1

    def chunk(self, tokens: int | None = None) -> None:
        """A chunk with news came; ``tokens``: how many, where that is known."""
        if not self._times:
            self._first_tokens = tokens or 1
        self._times.append(trio.current_time())

    def end(self) -> None:
        """The last chunk came, with or without news."""
        self._ended = trio.current_time()

    def sample(self, prompt_tokens: int, output_tokens: int | None, cached_tokens: int = 0) -> Sample:
        """Return the request; ``output_tokens``: ``None`` counts chunks."""
        return Sample(
            sent=self._sent,
            chunks=tuple(self._times),
            ended=trio.current_time() if self._ended is None else self._ended,
            prompt_tokens=prompt_tokens,
            output_tokens=len(self._times) if output_tokens is None else output_tokens,
            cached_tokens=cached_tokens,
            first_tokens=self._first_tokens,
            exact=output_tokens is not None,
        )


@define
class Outcome:
    """What became of the requests of one load. ``seconds``: from the first request to the last end."""

    samples: list[Sample] = field(factory=list[Sample])
    failures: list[InferenceError] = field(factory=list[InferenceError])
    seconds: float = 0.0

    async def add(self, target: Target, prompt: Prompt) -> None:
        """Ask once, and note what came of it."""
        try:
            self.samples.append(await target.ask(prompt))
        except InferenceError as failure:
            self.failures.append(failure)


async def apply_load(target: Target, prompts: Iterable[Prompt], load: LoadPoint, requests: int, seed: int) -> Outcome:
    """Send requests and wait for the end of all.

    Args:
        target: what is measured.
        prompts: where the requests come from.
        load: how they are sent.
        requests: how many.
        seed: of the arrival times.
    """
    outcome, started = Outcome(), trio.current_time()
    asked = islice(prompts, requests)
    async with trio.open_nursery() as nursery:
        if load.kind == "concurrency":
            for _ in range(min(int(load.value), requests)):
                nursery.start_soon(_stream, outcome, target, asked)
        else:
            drawn = random.Random(f"{seed} arrivals")
            for prompt in asked:
                nursery.start_soon(outcome.add, target, prompt)
                await trio.sleep(drawn.expovariate(load.value))
    outcome.seconds = max((s.ended for s in outcome.samples), default=trio.current_time()) - started
    return outcome


async def _stream(outcome: Outcome, target: Target, asked: Iterable[Prompt]) -> None:
    """One stream: the next request is sent when the last one has ended. All streams take from one iterator."""
    for prompt in asked:
        await outcome.add(target, prompt)
