"""The same work done by other actor frameworks, in a process of their own. Prints one JSON object.

python benchmarks/_actors_others.py pykka|atomr ROUNDS TELLS ASKS SPAWNS
"""

import gc
import json
import os
import statistics
import sys
import threading
from collections.abc import Callable
from importlib.metadata import version
from time import perf_counter
from typing import Any

from _actors_idle import resident

BATCH = 1000
Samples = dict[str, list[float]]


class State:
    """What the actor under measurement shares with its client: the client is another thread in both frameworks."""

    def __init__(self) -> None:
        self.handled, self.due = 0, 0
        self.drained, self.ready = threading.Event(), threading.Event()

    def count(self) -> None:
        self.handled += 1
        if self.handled == self.due:
            self.drained.set()


def tell_batches(state: State, tell: Callable[[int], object], count: int) -> None:
    for _ in range(max(1, count // BATCH)):
        state.drained.clear()
        state.due = state.handled + BATCH
        for number in range(BATCH):
            tell(number)
        if not state.drained.wait(60):
            raise TimeoutError("messages got lost")


def per_operation(count: int, work: Callable[[], object]) -> float:
    started = perf_counter()
    work()
    return (perf_counter() - started) / count


def repeat(count: int, operation: Callable[[int], object]) -> float:
    return per_operation(count, lambda: [operation(number) for number in range(count)])


def grown(count: int, operation: Callable[[int], object]) -> "tuple[float, float]":
    """Return the seconds and the bytes of one operation."""
    gc.collect()
    before = resident()
    seconds = repeat(count, operation)
    gc.collect()
    return seconds, (resident() - before) / count


def pykka_rounds(rounds: int, tells: int, asks: int, spawns: int) -> Samples:
    import pykka

    state = State()

    class Counter(pykka.ThreadingActor):
        use_daemon_thread = True

        def on_receive(self, message: int) -> int:
            state.count()
            return message

    ref = Counter.start()
    samples: Samples = {"tell": [], "ask": [], "spawn": [], "bytes": []}
    for _ in range(rounds):
        samples["tell"].append(per_operation(tells, lambda: tell_batches(state, ref.tell, tells)))
        samples["ask"].append(repeat(asks, ref.ask))
    # `start` returns before the thread runs; its first answer shows that it does.
    seconds, used = grown(spawns, lambda _: Counter.start().ask(0))
    return {**samples, "spawn": [seconds], "bytes": [used]}


def atomr_rounds(rounds: int, tells: int, asks: int, spawns: int) -> Samples:
    import atomr

    state = State()

    class Counter(atomr.Actor):
        async def pre_start(self, ctx: Any) -> None:
            state.ready.set()

        async def handle(self, ctx: Any, message: int) -> int:
            if message < 0:
                raise ValueError(message)
            state.count()
            return message

    def started(start: Callable[[], object]) -> None:
        state.ready.clear()
        start()
        if not state.ready.wait(60):
            raise TimeoutError("an actor did not start")

    strategy = atomr.supervision.one_for_one(default="restart", max_retries=10**6, within_seconds=1.0)
    recipe = atomr.props(Counter).with_supervisor_strategy(strategy)
    system = atomr.ActorSystem.create_blocking("bench")
    ref = system.actor_of(recipe, "counter")
    ref.ask_blocking(0, 60.0)
    samples: Samples = {"tell": [], "ask": [], "restart": []}
    for _ in range(rounds):
        samples["tell"].append(per_operation(tells, lambda: tell_batches(state, ref.tell, tells)))
        samples["ask"].append(repeat(asks, lambda number: ref.ask_blocking(number, 60.0)))
        samples["restart"].append(repeat(spawns, lambda _: started(lambda: ref.tell(-1))))
    # `actor_of` returns before the start.
    seconds, used = grown(spawns, lambda number: started(lambda: system.actor_of(recipe, f"idle-{number}")))
    return {**samples, "spawn": [seconds], "bytes": [used]}


def main() -> int:
    which, *numbers = sys.argv[1:]
    measure = {"pykka": pykka_rounds, "atomr": atomr_rounds}[which]
    try:
        samples = measure(*map(int, numbers))
    except ImportError:
        print(json.dumps(None), flush=True)
    else:
        medians = {name: statistics.median(values) for name, values in samples.items()}
        print(json.dumps({"version": version(which), **medians}), flush=True)
    return 0


if __name__ == "__main__":
    status = 1
    try:
        status = main()
    finally:
        # The threads of atomr's runtime outlive a normal exit of the interpreter and then abort it.
        os._exit(status)
