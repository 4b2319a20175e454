"""What `test_sharding` looks at, computed on simulated devices: it must be a process of its own, for jax asks once.

Usage: ``python sharding_work.py FOLDER``, with ``--xla_force_host_platform_device_count=8`` in XLA_FLAGS. Prints JSON.
"""

import json
import re
import sys
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from engine_kit import collect, request, tiny_settings

from atomr_trio.core import ModelLoadError
from atomr_trio.engine.attention import AttentionSpec
from atomr_trio.engine.attention.gpu import GpuAttention
from atomr_trio.engine.compile_cache import CompileCache
from atomr_trio.engine.engine import Engine
from atomr_trio.engine.kv_cache import find_slots
from atomr_trio.engine.loading import load_model
from atomr_trio.engine.model import init_kv
from atomr_trio.engine.sharding import Layout
from tests.checkpoints import config_of, random_tensors, write_folder

LAYERS = 2
SIZES = {
    "num_hidden_layers": LAYERS,
    "intermediate_size": 64,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    # Two devices divide it, eight do not.
    "vocab_size": 300,
}
PROMPTS = [[7], [3, 1, 4, 1, 5, 9, 2, 6, 5], list(range(20)), [5, 11, 260] * 7]
COLLECTIVES = r"= \S+ (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)(?:-start)?\("


def shares(tree):
    """The shape of the first device's part of each array, after the array's own; one device has all."""
    found = {}
    for path, array in jax.tree_util.tree_leaves_with_path(tree):
        parts = {shard.data.shape for shard in array.addressable_shards}
        assert len(parts) == 1, "every device has as much as the others"
        found[jax.tree_util.keystr(path)] = [list(array.shape), list(*parts)]
    return found


def counts(engine, pattern):
    """How often a pattern is found in compiled programs, by their kind."""
    compiled = dict(engine._loaded.programs._compiled)
    return {key.kind: Counter(re.findall(pattern, program.as_text())) for key, program in compiled.items()}


def answers(engine, first):
    """Tokens, and how many of the prompt's were cached, of prompts that share steps."""
    for number, prompt in enumerate(PROMPTS, first):
        # One of them is not greedy.
        engine.add(request(number, prompt, 10, temperature=float(len(prompt) == 9), seed=5))
    tokens, last = collect(engine)
    return [[tokens[number], last[number].cached_tokens] for number in sorted(tokens)]


def serve(folder, dtype, count):
    settings = tiny_settings(
        str(folder / "programs"), model=str(folder / "config.json"), dtype=dtype, max_num_seqs=2, tensor_parallel=count
    )
    engine = Engine(settings)
    ready = engine.load()
    state = engine._loaded.executor.state
    found = {
        "device": ready.device,
        "cold": answers(engine, 0),
        "warm": answers(engine, 10),
        "layer": shares(engine._loaded.model.params["layers"][0]),
        "embed": shares(engine._loaded.model.params["embed"]),
        "pages": shares(state._kv[0]),
        "view": shares(state._view.arrays[0]),
        "collectives": counts(engine, COLLECTIVES),
        "in place": counts(engine, "may-alias|must-alias"),
    }
    engine.close()
    return found


def looped(folder):
    """Tokens that are decoded several at once, and how often the cache of such a program is changed in place."""
    config = {"model": str(folder / "config.json"), "dtype": "float32", "max_num_seqs": 2}
    engine = Engine(tiny_settings(str(folder / "programs"), **config, tensor_parallel=2, decode_steps=3))
    engine.load()
    loops = [key for key in engine._loaded.executor._buckets.everything() if key.kind == "views"]
    for key in loops[:2]:
        engine._loaded.programs.get(key)
    found = {"answers": answers(engine, 0), "in place": counts(engine, "may-alias|must-alias")}
    found["kinds"] = sorted({key.kind for key in engine._loaded.programs.compiled})
    engine.close()
    return found


def refusal(folder, **changes):
    try:
        load_model(tiny_settings(None, **{"model": str(folder / "config.json"), **changes}), lambda *_: None)
    except ModelLoadError as error:
        return str(error)
    return None


def family_distance(folder, family):
    """How far the logits of two devices are from those of one."""
    config = config_of(family)
    write_folder(folder / family, config, random_tensors(config, 3))
    found = [family_logits(folder / family, count) for count in (1, 2)]
    return float(np.abs(found[0] - found[1]).max() / np.abs(found[0]).max())


def family_logits(path, count):
    model = load_model(tiny_settings(None, model=str(path), load_format="auto", tensor_parallel=count), lambda *_: None)
    kv = init_kv(model.served.sizes, 4, 4, "float32", model.layout.heads)
    tokens = jnp.array([[7, 3, 9, 250, 31, 8, 2, 90]], jnp.int32)
    attend = GpuAttention((9, 0), interpret=True)

    @jax.jit
    def run(params, kv):
        tables = jnp.array([[1, 2]], jnp.int32)
        hidden, _ = model.served.run(params, kv, tokens, jnp.arange(8)[None], tables, attend)
        return model.served.logits(params, hidden)

    return np.asarray(run(model.params, kv))


def kernel_distances():
    """How far the kernels of a GPU, each with half of the heads, are from themselves with all of them."""
    rng = np.random.default_rng(0)
    attend = GpuAttention((9, 0), interpret=True, implementation="xla")
    return {
        "decode": _kernel_distance(rng, attend, batch=2, chunk=1, dtype="float32"),
        "prefill": _kernel_distance(rng, attend, batch=1, chunk=4, dtype="bfloat16"),
    }


def _kernel_distance(rng, attend, *, batch, chunk, dtype):
    def draw(*shape):
        return jnp.array(rng.standard_normal(shape), dtype)

    cache, split = (draw(6, 2, 4, 16), draw(6, 2, 4, 16)), Layout.over(2)
    q, k, v = draw(batch, chunk, 4, 16), draw(batch, chunk, 2, 16), draw(batch, chunk, 2, 16)
    tables = jnp.arange(1, 1 + 2 * batch, dtype=jnp.int32).reshape(batch, 2)
    slots = find_slots([cache], jnp.tile(2 + jnp.arange(chunk), (batch, 1)), tables)
    results = [
        jax.jit(one, static_argnums=0)(AttentionSpec(0.25), cache, q, k, v, slots)
        for one in (attend, split.attend(attend))
    ]
    flat = [[np.asarray(leaf, np.float32) for leaf in jax.tree.leaves(result)] for result in results]
    return max(float(np.abs(a - b).max()) for a, b in zip(*flat, strict=True))


def compile_nothing_ahead():
    """Leave it at the programs that a step waits for: they are a tenth of all."""
    for method in ("warm_up", "prepare", "prepare_when_quiet"):
        setattr(CompileCache, method, lambda *_: None)


def main(folder):
    compile_nothing_ahead()
    (folder / "config.json").write_text(json.dumps(config_of("llama", **SIZES)))
    cache = Counter()
    jax.monitoring.register_event_listener(lambda event, **_: cache.update([event]))
    found = {
        "layers": LAYERS,
        "float32": {count: serve(folder, "float32", count) for count in (1, 2)},
        "int8": {count: serve(folder, "int8", count) for count in (1, 8)},
    }
    cache.clear()
    found["again"] = serve(folder, "float32", 2)
    found["cache"] = [cache["/jax/compilation_cache/cache_hits"], cache["/jax/compilation_cache/cache_misses"]]
    found["looped"] = looped(folder)
    found["refusals"] = {
        "heads": refusal(folder, tensor_parallel=3),
        "devices": refusal(folder, tensor_parallel=16),
        "own": refusal(folder, load_format="python", model="toy_gpt:make", tensor_parallel=2),
    }
    found["families"] = {family: family_distance(folder, family) for family in ("llama3", "gemma3")}
    found["kernels"] = kernel_distances()
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
