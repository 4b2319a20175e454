"""One process of `gpu.py`: questions about the device and the compiler that decide how the engine is written.

Each check returns figures, or says why it has none. Times of small programs are taken inside one program that runs them
many times, each after the other, so that dispatching them does not count.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from atomr_trio.engine.attention import flash_prefill, paged_decode, reference
from atomr_trio.engine.attention.dense import dense
from atomr_trio.engine.attention.spec import AttentionSpec
from atomr_trio.engine.kv_cache import Slots, read_pages, write_tokens

# Modules, even where the package gives their names to functions.
decode_room, prefill_room, reference_room = (
    sys.modules[f"atomr_trio.engine.attention.{name}"] for name in ("paged_decode", "flash_prefill", "reference")
)
del flash_prefill, paged_decode, reference

Sizes = dict[str, Any]
REAL: Sizes = {"copy_bytes": 2**31, "repeats": 50, "heads": 32, "kv_heads": 8, "dim": 128, "page_size": 32} | {
    "rows": [1, 8, 64], "context": 2048, "chunk": 512, "vocab": 151_936, "matrix": (14_336, 4096), "pages": 16_384,
}  # fmt: skip
TINY: Sizes = {"copy_bytes": 2**20, "repeats": 2, "heads": 4, "kv_heads": 2, "dim": 32, "page_size": 16} | {
    "rows": [1, 2], "context": 64, "chunk": 16, "vocab": 300, "matrix": (64, 32), "pages": 32,
}  # fmt: skip


def seconds(run: Callable[[], Any], best_of: int = 5) -> float:
    jax.block_until_ready(run())
    times: list[float] = []
    for _ in range(best_of):
        started = perf_counter()
        jax.block_until_ready(run())
        times.append(perf_counter() - started)
    return min(times)


def seconds_each(function: Callable[..., jax.Array], fed: jax.Array, *rest: Any, repeats: int) -> float:
    """Time of one call of `function(fed, *rest)`.

    Each result feeds, by nothing, into the next call's first argument: what depends on that is computed every time, and
    the compiler may compute the rest once.
    """

    @jax.jit
    def many(fed: jax.Array, *rest: Any) -> jax.Array:
        def once(_: Any, x: jax.Array) -> jax.Array:
            result = jax.lax.optimization_barrier(function(x, *rest))
            return x + jnp.isnan(result.ravel()[0]).astype(x.dtype)

        return jax.lax.fori_loop(0, repeats, once, fed)

    return seconds(lambda: many(fed, *rest)) / repeats


def bandwidth(sizes: Sizes) -> Sizes:
    """Bytes read and written per second by the largest plain copy."""
    source = jnp.zeros(sizes["copy_bytes"] // 4, jnp.int32)
    copy = jax.jit(lambda x: x + 1)
    return {"bytes_per_s": 2 * source.nbytes / seconds(lambda: copy(source), 10)}


def _case(sizes: Sizes, rows: int) -> "tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]":
    rng = np.random.default_rng(rows)
    width = sizes["context"] // sizes["page_size"]
    shape = rows * width + 1, sizes["kv_heads"], sizes["page_size"], sizes["dim"]
    keys, values = (jax.random.normal(jax.random.key(seed), shape, jnp.bfloat16) for seed in range(2))
    q = jax.random.normal(jax.random.key(2), (rows, sizes["heads"], sizes["dim"]), jnp.bfloat16)
    tables = jnp.asarray((rng.permutation(rows * width) + 1).reshape(rows, width), jnp.int32)
    return q, keys, values, tables, jnp.full(rows, sizes["context"] - 1, jnp.int32)


def _gathered(scale: float, q: jax.Array, keys: jax.Array, values: jax.Array, tables: Any, at: Any) -> jax.Array:
    past = read_pages(keys, tables), read_pages(values, tables)
    return dense(AttentionSpec(scale), q[:, None], *past, at[:, None])[:, 0]


def _seconds_decoding(attend: Callable[..., jax.Array], case: "tuple[jax.Array, ...]", repeats: int) -> float:
    # The table is what is fed: pages are gathered anew each time.
    q, keys, values, tables, at = case
    return seconds_each(lambda tables, *rest: attend(*rest[:3], tables, at), tables, q, keys, values, repeats=repeats)


def decode_kernel(sizes: Sizes) -> Sizes:
    """The paged kernel beside gathering the pages: error against the definition, time, bytes per second."""
    if not decode_room.available():
        return {"skipped": "this jax lowers no Pallas kernel to Triton"}
    scale = sizes["dim"] ** -0.5
    interpret = jax.default_backend() == "cpu"
    kernel = partial(decode_room.paged_decode, scale=scale, interpret=interpret)
    results: Sizes = {}
    for rows in sizes["rows"]:
        case = q, keys, values, tables, at = _case(sizes, rows)
        past = read_pages(keys, tables), read_pages(values, tables)
        want = reference_room.attend(q[:, None], *past, at[:, None], scale=scale)[:, 0]
        kernel_s = _seconds_decoding(kernel, case, sizes["repeats"])
        gather_s = _seconds_decoding(partial(_gathered, scale), case, sizes["repeats"])
        results[f"{rows} rows"] = {
            "error": float(jnp.max(jnp.abs(jax.jit(kernel)(*case) - want))),
            "kernel_us": 1e6 * kernel_s,
            "gather_us": 1e6 * gather_s,
            "kernel_bytes_per_s": (keys.nbytes + values.nbytes) / kernel_s,
        }
    return results


def prefill(sizes: Sizes) -> Sizes:
    """A chunk late in a prompt: cuDNN beside XLA's products."""
    on_gpu = jax.default_backend() == "gpu"
    scale, chunk, time = sizes["dim"] ** -0.5, sizes["chunk"], sizes["context"]
    q = jax.random.normal(jax.random.key(0), (chunk, sizes["heads"], sizes["dim"]), jnp.bfloat16)
    size = sizes["kv_heads"], time, sizes["dim"]
    k, v = (jax.random.normal(jax.random.key(seed), size, jnp.bfloat16) for seed in (1, 2))
    start = jnp.int32(time - chunk)
    at = start + jnp.arange(chunk)[None]
    flash = partial(prefill_room.flash_prefill, scale=scale, implementation="cudnn" if on_gpu else "xla")

    def plain(q: jax.Array, k: jax.Array, v: jax.Array, _: Any) -> jax.Array:
        return dense(AttentionSpec(scale), q[None], k[None], v[None], at)[0]

    want = reference_room.attend(q[None], k[None], v[None], at, scale=scale)[0]
    return {
        "error": float(jnp.max(jnp.abs(jax.jit(flash)(q, k, v, start).astype(jnp.float32) - want))),
        "flash_us": 1e6 * seconds_each(flash, q, k, v, start, repeats=sizes["repeats"]),
        "plain_us": 1e6 * seconds_each(plain, q, k, v, start, repeats=sizes["repeats"]),
    }


def cache_update(sizes: Sizes) -> Sizes:
    """Does a donated cache take new tokens in place? Temporary memory of the size of the pool says no."""
    shape = sizes["pages"], sizes["kv_heads"], sizes["page_size"], sizes["dim"]
    cache = jax.ShapeDtypeStruct(shape, jnp.bfloat16)
    rows = sizes["rows"][-1]
    index = jax.ShapeDtypeStruct((rows, 1), jnp.int32)
    slots = Slots(index, index, index, jax.ShapeDtypeStruct((rows, 8), jnp.int32))
    new = jax.ShapeDtypeStruct((rows, 1, *shape[1::2]), jnp.bfloat16)
    compiled = jax.jit(write_tokens, donate_argnums=0).lower(cache, slots, new).compile()
    return {"pool_bytes": int(np.prod(shape)) * 2, "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes}


def int8_fusion(sizes: Sizes) -> Sizes:
    """Is an int8 weight widened inside the product? Temporary memory of the weight's size says no."""
    weight = jnp.ones(sizes["matrix"], jnp.int8)
    results: Sizes = {"weight_bytes": weight.nbytes}
    for rows in sizes["rows"]:
        x = jnp.ones((rows, weight.shape[1]), jnp.bfloat16)
        product = lambda x, w: x @ w.astype(x.dtype).T  # noqa: E731
        compiled = jax.jit(product).lower(x, weight).compile()
        results[f"{rows} rows"] = {
            "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
            "int8_us": 1e6 * seconds_each(product, x, weight, repeats=sizes["repeats"]),
            "bfloat16_us": 1e6 * seconds_each(product, x, weight.astype(jnp.bfloat16), repeats=sizes["repeats"]),
        }
    return results


def top_k(sizes: Sizes) -> Sizes:
    """What `lax.top_k` of 64 costs over a large vocabulary, by rows."""
    results: Sizes = {}
    for rows in sizes["rows"]:
        logits = jax.random.normal(jax.random.key(0), (rows, sizes["vocab"]))
        spent = seconds_each(lambda x: jax.lax.top_k(x, 64)[0], logits, repeats=sizes["repeats"])
        results[f"{rows} rows"] = {"top_k_us": 1e6 * spent}
    return results


def donated_after_exhaustion(_sizes: Sizes) -> Sizes:
    """Does a donated argument survive a program that runs out of memory?"""
    if jax.default_backend() != "gpu":
        return {"skipped": "takes a device with its own memory"}
    # Twice what the device has.
    shape = jax.devices()[0].memory_stats()["bytes_limit"] // 2048, 1024
    donated = jnp.zeros(1024)
    too_much = jax.jit(lambda x: (x + 1, jnp.zeros(shape) + x), donate_argnums=0)
    try:
        jax.block_until_ready(too_much(donated))
    except jax.errors.JaxRuntimeError as error:
        return {"error": str(error).partition(":")[0], "survives": not donated.is_deleted()}
    return {"skipped": "the device had enough memory"}


CHECKS = (bandwidth, decode_kernel, prefill, cache_update, int8_fusion, top_k, donated_after_exhaustion)


def attempt(check: Callable[[Sizes], Sizes], sizes: Sizes) -> Sizes:
    try:
        return check(sizes)
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {str(error)[:300]}"}


def main(options: dict[str, Any]) -> dict[str, Any]:
    sizes = TINY if options["tiny"] else REAL
    device = jax.devices()[0]
    about = {"backend": jax.default_backend(), "device": device.device_kind, "jax": jax.__version__}
    asked = {check.__name__: check for check in CHECKS if check.__name__ in options["checks"]}
    return about | {name: attempt(check, sizes) for name, check in asked.items()}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
