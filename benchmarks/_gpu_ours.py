"""One process of `gpu.py`: decodes with this project's engine, in process, and prints what it measured as JSON.

All streams get prompts that share nothing. They are measured from when the last of them has its first token until the
first of them ends: steps in which every stream gets one token, and nothing else happens.
"""

import json
import random
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import Any

import jax
from attrs import define, field

from atomr_trio.engine import EngineSettings
from atomr_trio.engine.engine import Engine
from atomr_trio.engine.frames import SequenceRequest

PAGE_SIZE = 32
# What goes on between prompts of a round: rows that decode while others are still being prefilled.
SLACK = 8


@define
class Round:
    """Streams that decode together. `marks`: (seconds, tokens so far) after each step that counts."""

    streams: int
    counts: Counter[int] = field(factory=Counter)
    marks: list[tuple[float, int]] = field(factory=list)
    over: bool = False

    def note(self, outputs: list[Any]) -> None:
        for output in outputs:
            self.counts[output.id] += len(output.token_ids)
            self.over |= output.finish_reason is not None
        if len(self.counts) == self.streams and not self.over:
            self.marks.append((perf_counter(), self.counts.total()))

    def result(self, prompt: int) -> dict[str, float]:
        (began, first), (ended, last) = self.marks[0], self.marks[-1]
        steps = (last - first) / self.streams
        return {
            "streams": self.streams,
            "tokens_per_s": (last - first) / (ended - began),
            "step_ms": 1000 * (ended - began) / steps,
            "context_tokens": self.streams * prompt + (first + last) / 2,
        }


def begin_round(engine: Engine, options: dict[str, Any], streams: int, salt: int) -> Round:
    drawn = random.Random(salt)
    tokens = streams + options["tokens"] + SLACK
    for number in range(streams):
        prompt = drawn.choices(range(3, options["vocab_size"]), k=options["prompt"])
        engine.add(SequenceRequest(id=number, prompt_ids=prompt, max_tokens=tokens, temperature=0.0, ignore_eos=True))
    return Round(streams)


def run_round(engine: Engine, options: dict[str, Any], streams: int, salt: int) -> dict[str, float]:
    turn = begin_round(engine, options, streams, salt)
    while not engine.idle:
        turn.note(engine.step().outputs)
    return turn.result(options["prompt"])


def median_round(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}


def settings_of(options: dict[str, Any]) -> EngineSettings:
    most = max(options["streams"])
    longest = options["prompt"] + most + options["tokens"] + 2 * SLACK
    return EngineSettings(
        model=options["model"],
        load_format="dummy",
        dtype=options["dtype"],
        max_num_seqs=most,
        max_model_len=longest,
        kv_tokens=most * -(-longest // PAGE_SIZE) * PAGE_SIZE,
        page_size=PAGE_SIZE,
        prefill_chunk=options["prompt"],
        prefill_chunk_busy=options["prompt"],
        cache_dir=options["cache_dir"],
        **options.get("settings", {}),
    )


def measure(options: dict[str, Any]) -> dict[str, Any]:
    unknown = set(options.get("settings", {})) - set(EngineSettings.__struct_fields__)
    if unknown:
        return {"skipped": f"this engine has no setting {', '.join(sorted(unknown))}"}
    engine = Engine(settings_of(options))
    ready = engine.load()
    started = perf_counter()
    results: dict[str, Any] = {"load_s": ready.load_s, "start_s": ready.load_s + ready.warmup_s}
    if options["rounds"]:
        engine.compile_everything()
        results["compile_rest_s"] = perf_counter() - started
        results["decode"] = [decode(engine, options, streams) for streams in options["streams"]]
    if options.get("profile"):
        results["kernels"] = profile(engine, options)
    engine.close()
    return results


def decode(engine: Engine, options: dict[str, Any], streams: int) -> dict[str, float]:
    # The first round of a kind runs programs for the first time.
    rounds = [run_round(engine, options, streams, salt) for salt in range(options["rounds"] + 1)]
    return median_round(rounds[1:])


def profile(engine: Engine, options: dict[str, Any]) -> dict[str, Any]:
    """The device's largest kernels while some streams decode. Profiling turns command buffers off."""
    streams = min(options["profile"], max(options["streams"]))
    turn = begin_round(engine, options, streams, 0)
    while not turn.marks and not engine.idle:
        turn.note(engine.step().outputs)
    about = jax.profiler.ProfileOptions()
    about.python_tracer_level = 0
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder, profiler_options=about):
            while len(turn.marks) <= options["tokens"] // 2 and not engine.idle:
                turn.note(engine.step().outputs)
        times, counts = kernel_times(next(Path(folder).rglob("*.xplane.pb")))
    whole, steps = sum(times.values()), options["tokens"] // 2
    largest = [
        {"name": name, "share": spent / whole, "us_each": spent / 1e3 / counts[name], "calls": counts[name]}
        for name, spent in times.most_common(15)
    ]
    step_ms = turn.result(options["prompt"])["step_ms"]
    return {"streams": streams, "step_ms": step_ms, "busy_ms": whole / 1e6 / steps, "largest": largest}


def kernel_times(file: Path) -> "tuple[Counter[str], Counter[str]]":
    """Nanoseconds, and calls, by name. Where there is no GPU: of everything that the host did."""
    planes = list(jax.profiler.ProfileData.from_file(str(file)).planes)
    on_device = [plane for plane in planes if plane.name.startswith("/device:GPU")]
    times: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for plane in on_device or planes:
        for line in plane.lines:
            # Other lines of a device sum its streams' kernels up once more.
            if on_device and not line.name.startswith("Stream"):
                continue
            for event in line.events:
                times[event.name] += int(event.duration_ns)
                counts[event.name] += 1
    return times, counts


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
