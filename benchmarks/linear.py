"""What the matrix products of a model cost, by dtype and number of rows: the part of a step that depends on the form.

Loads the model as the engine does (so with the measured forms), and runs all of its matrix products for one step, one
after another in one program, without what lies between them. Time is that of all threads (CPU) and of the clock, the
median over rounds in which the dtypes take turns. The machine may be noisy, so trust the ratios.

    python benchmarks/linear.py [MODEL] [--dtypes float32 bfloat16 int8] [--rows 1 8 32 64] [--rounds 9] [--json]
"""

import argparse
from functools import partial
from statistics import median
from time import perf_counter, process_time

import jax
import jax.numpy as jnp
import numpy as np
from _serving import command_line, machine, print_json
from attrs import asdict, frozen

from atomr_trio.catalog import DEFAULT_MODEL, default_catalog, ensure_model
from atomr_trio.engine.linear import Int8Weight, linear
from atomr_trio.engine.loading import load_model
from atomr_trio.engine.settings import EngineSettings


@frozen
class Cost:
    """Of one step: milliseconds of all threads, and of the clock."""

    rows: int
    dtype: str
    cpu_ms: float
    wall_ms: float


@jax.jit
def products(params, x):
    for layer in params["layers"]:
        for name in ("qkv", "attn_out", "gate_up", "down"):
            # Every product waits for the one before, as in a model; values stay where no number is special.
            x = jnp.tanh(linear(fitted(x, layer[name]), layer[name]))
    output = params.get("output", params["embed"])
    return jnp.argmax(linear(fitted(x, output), output), axis=-1)


def fitted(x, w):
    wanted = (w.values if isinstance(w, Int8Weight) else w).shape[1]
    return jnp.resize(x, (x.shape[0], wanted)) if x.shape[1] < wanted else x[:, :wanted]


def load(path: str, dtype: str):
    model = load_model(EngineSettings(model=path, dtype=dtype, kv_tokens=32, max_model_len=32), lambda *_: None)
    return model.params


def run_once(params, x) -> tuple[float, float]:
    wall, cpu = perf_counter(), process_time()
    products(params, x).block_until_ready()
    return 1000 * (process_time() - cpu), 1000 * (perf_counter() - wall)


def measure(options: argparse.Namespace) -> list[Cost]:
    path = str(ensure_model(default_catalog(), options.model))
    params = {dtype: load(path, dtype) for dtype in options.dtypes}
    return [cost for rows in options.rows for cost in measure_rows(params, rows, options.rounds)]


def measure_rows(params, rows: int, rounds: int) -> list[Cost]:
    width = next(iter(params.values()))["final_norm"].shape[0]
    # The dtype that a model of these weights computes in.
    inputs = partial(jnp.asarray, np.random.default_rng(0).standard_normal((rows, width), np.float32))
    x = {dtype: inputs(jnp.bfloat16 if dtype == "bfloat16" else jnp.float32) for dtype in params}
    taken = {dtype: [] for dtype in params}
    for number in range(rounds + 1):
        for dtype, tree in params.items():
            found = run_once(tree, x[dtype])
            if number:  # the first compiles
                taken[dtype].append(found)
    middle = {dtype: [median(column) for column in zip(*found, strict=True)] for dtype, found in taken.items()}
    return [Cost(rows, dtype, *times) for dtype, times in middle.items()]


def show(costs: list[Cost], options: argparse.Namespace, here: str) -> None:
    if options.json:
        print_json(here, costs=[asdict(cost) for cost in costs])
        return
    print(f"{here}\n{command_line()}   (medians of {options.rounds})\n")
    print(f"{'rows':>5} {'dtype':>9} {'CPU ms':>8} {'wall ms':>8} {'CPU ms / row':>13}")
    for cost in costs:
        each = cost.cpu_ms / cost.rows
        print(f"{cost.rows:>5} {cost.dtype:>9} {cost.cpu_ms:>8.1f} {cost.wall_ms:>8.1f} {each:>13.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16", "int8"])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 8, 32, 64])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    here = machine()
    show(measure(options), options, here)


if __name__ == "__main__":
    main()
