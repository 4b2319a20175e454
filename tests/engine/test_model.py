"""The transformer: equal to a plain numpy one for any chunking, paging and batching, and to the reference model."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.engine.config import ModelConfig
from atomr_trio.engine.model import forward, init_kv, logits
from atomr_trio.engine.sampler import token_logprobs
from atomr_trio.engine.weights import load_gguf_params, random_params
from atomr_trio.formats import GgufFile

CONFIG = ModelConfig.tiny(tied_embeddings=False)
PARAMS = random_params(CONFIG, "float32", seed=0)
PAGE, WIDTH, CHUNK, ROWS = 4, 4, 5, 3


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def step(config, params, kv, tokens, positions, tables):
    hidden, kv = forward(config, params, kv, tokens, positions, tables)
    return logits(config, params, hidden), kv


def plain_logits(config, params, tokens):
    """The same model without cache, batch or fusion, in float64: ``[T, vocab]``."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    dim, heads, kv_heads = config.head_dim, config.num_heads, config.num_kv_heads
    positions = np.arange(len(tokens))

    def norm(x, w):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + config.rms_norm_eps) * w

    def rotate(x):
        turned = np.exp(1j * positions[:, None, None] * p["inv_freq"]) * (x[..., : dim // 2] + 1j * x[..., dim // 2 :])
        return np.concatenate([turned.real, turned.imag], -1)

    x = p["embed"][tokens]
    for layer in p["layers"]:
        qkv = (norm(x, layer["attn_norm"]) @ layer["qkv"].T).reshape(len(tokens), -1, dim)
        q, k, v = np.split(qkv, [heads, heads + kv_heads], axis=1)
        q, k = rotate(q), rotate(k)
        mixed = np.zeros_like(q)
        for head in range(heads):
            group = head // (heads // kv_heads)
            scores = q[:, head] @ k[:, group].T / np.sqrt(dim)
            scores[positions[:, None] < positions] = -np.inf
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            mixed[:, head] = weights / weights.sum(-1, keepdims=True) @ v[:, group]
        x = x + mixed.reshape(len(tokens), -1) @ layer["attn_out"].T
        gate, up = np.split(norm(x, layer["ffn_norm"]) @ layer["gate_up"].T, 2, axis=-1)
        x = x + (gate / (1 + np.exp(-gate)) * up) @ layer["down"].T
    return norm(x, p["final_norm"]) @ p.get("output", p["embed"]).T


def run_paged(sequences, tables, cuts, kv):
    """Compute sequences in steps: each step takes up to CHUNK tokens of each row, as ``cuts`` says."""
    results = [np.zeros((0, CONFIG.vocab_size))] * ROWS
    done = [0] * ROWS
    while any(count < len(row) for count, row in zip(done, sequences, strict=True)):
        tokens = np.zeros((ROWS, CHUNK), np.int32)
        positions = np.full((ROWS, CHUNK), -1, np.int32)
        sizes = [min(next(cuts), len(row) - count) for count, row in zip(done, sequences, strict=True)]
        for row, (start, size) in enumerate(zip(done, sizes, strict=True)):
            tokens[row, :size] = sequences[row][start : start + size]
            positions[row, :size] = np.arange(start, start + size)
        found, kv = step(CONFIG, PARAMS, kv, tokens, positions, tables)
        for row, size in enumerate(sizes):
            results[row] = np.concatenate([results[row], found[row, :size]])
            done[row] += size
    return results, kv


sequences = st.lists(st.integers(0, CONFIG.vocab_size - 1), max_size=PAGE * WIDTH)


@given(
    rows=st.lists(sequences, min_size=ROWS, max_size=ROWS),
    pages=st.permutations(range(1, ROWS * WIDTH + 4)),
    cuts=st.lists(st.integers(1, CHUNK), min_size=1),
    junk=st.sampled_from([0.0, 1e30, -1e30]),
)
@settings(max_examples=60)
def test_any_paging_and_chunking_equals_the_plain_model(rows, pages, cuts, junk):
    # What earlier owners left in the pages must not matter.
    kv = jax.tree.map(lambda a: a + junk, init_kv(CONFIG, ROWS * WIDTH + 4, PAGE, "float32"))
    tables = np.array(pages[: ROWS * WIDTH], np.int32).reshape(ROWS, WIDTH)
    for table, row in zip(tables, rows, strict=True):
        table[-(-len(row) // PAGE) :] = 0
    found, _ = run_paged(rows, tables, iter(cuts * 100), kv)
    for row, got in zip(rows, found, strict=True):
        if row:
            np.testing.assert_allclose(got, plain_logits(CONFIG, PARAMS, row), rtol=1e-4, atol=1e-4)


def test_padding_writes_only_the_garbage_page_and_nothing_but_numbers():
    kv = init_kv(CONFIG, 6, PAGE, "float32")
    tokens = np.full((ROWS, CHUNK), 7, np.int32)
    tables = np.array([[1, 2, 3, 4]] * ROWS, np.int32)
    found, kv = step(CONFIG, PARAMS, kv, tokens, np.full_like(tokens, -1), tables)
    assert np.isfinite(found).all()
    for array in jax.tree.leaves(kv):
        assert np.isfinite(array).all()
        assert not np.asarray(array)[1:].any()


def test_a_position_beyond_the_table_is_written_nowhere():
    kv = init_kv(CONFIG, 6, PAGE, "float32")
    tokens = np.full((ROWS, CHUNK), 7, np.int32)
    tables = np.array([[1, 2, 3, 4]] * ROWS, np.int32)
    _, kv = step(CONFIG, PARAMS, kv, tokens, np.full_like(tokens, PAGE * WIDTH + 1), tables)
    assert not any(np.asarray(array)[1:].any() for array in jax.tree.leaves(kv))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_the_cache_is_updated_in_place(dtype):
    params = random_params(CONFIG, dtype, seed=0)
    kv = init_kv(CONFIG, 6, PAGE, dtype)
    before = [array.unsafe_buffer_pointer() for array in jax.tree.leaves(kv)]
    tokens = np.zeros((1, 1), np.int32)
    _, kv = step(CONFIG, params, kv, tokens, tokens, np.array([[1]], np.int32))
    assert [array.unsafe_buffer_pointer() for array in jax.tree.leaves(kv)] == before


@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 0.15), ("int8", 0.15)])
@pytest.mark.parametrize(("rows", "chunk"), [(1, 1), (3, 4)])
def test_other_dtypes_are_near_float32(dtype, bound, rows, chunk):
    tokens = np.random.default_rng(0).integers(0, CONFIG.vocab_size, (rows, 12), np.int32)
    positions = np.broadcast_to(np.arange(12, dtype=np.int32), tokens.shape)
    tables = 1 + np.arange(3 * rows, dtype=np.int32).reshape(rows, 3)
    found = []
    for kind in ("float32", dtype):
        params, kv = random_params(CONFIG, kind, seed=0), init_kv(CONFIG, 1 + 3 * rows, PAGE, kind)
        steps: list[np.ndarray] = []
        for start in range(0, 12, chunk):
            part = slice(start, start + chunk)
            got, kv = step(CONFIG, params, kv, tokens[:, part], positions[:, part], tables)
            steps.append(np.asarray(got))
        found.append(np.concatenate(steps, axis=1))
    exact, near = found
    assert near.dtype == np.float32
    assert np.sqrt(np.mean((near - exact) ** 2)) < bound * np.std(exact)


# --- the real model ---

REAL_PAGE, REAL_WIDTH, REAL_CHUNK = 16, 12, 64


@pytest.fixture(scope="module")
def cases(data_dir):
    return json.loads((data_dir / "smollm2-135m-instruct.json").read_text())["cases"]


@pytest.fixture(scope="module")
def real(smollm2_path):
    """Configuration, and a function that loads the weights in a dtype."""
    with GgufFile.open(smollm2_path) as file:
        config = ModelConfig.from_gguf(file.fields)
        yield config, partial(load_gguf_params, file, config)


@pytest.fixture(scope="module")
def real_params(real):
    config, load = real
    return config, load("float32")


@partial(jax.jit, static_argnums=0, donate_argnums=2)
def real_step(config, params, kv, tokens, positions, tables, next_tokens):
    """One step of ``[B, C]``: log probabilities of ``next_tokens``, best tokens, and the cache."""
    hidden, kv = forward(config, params, kv, tokens, positions, tables)
    raw = logits(config, params, hidden.reshape(-1, config.hidden_size))
    scores = token_logprobs(raw, next_tokens.reshape(-1)).reshape(tokens.shape)
    return scores, jnp.argmax(raw, axis=-1).reshape(tokens.shape), kv


def real_tables(rows):
    return 1 + np.arange(rows * REAL_WIDTH, dtype=np.int32).reshape(rows, REAL_WIDTH)


def score_prompts(config, params, kv, prompts, chunk):
    """Run whole prompts in chunks; returns per prompt the log probabilities of its tokens 1.. and its next token."""
    width = max(map(len, prompts))
    width += -width % chunk
    tokens = np.zeros((len(prompts), width + 1), np.int32)
    positions = np.full((len(prompts), width), -1, np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
        positions[row, : len(prompt)] = np.arange(len(prompt))
    parts = []
    for start in range(0, width, chunk):
        part = slice(start, start + chunk)
        scores, best, kv = real_step(
            config,
            params,
            kv,
            tokens[:, part],
            positions[:, part],
            real_tables(len(prompts)),
            tokens[:, start + 1 : start + chunk + 1],
        )
        parts.append((np.asarray(scores), np.asarray(best)))
    scores, best = (np.concatenate([part[i] for part in parts], axis=1) for i in range(2))
    found = [(scores[row, : len(prompt) - 1], best[row, len(prompt) - 1]) for row, prompt in enumerate(prompts)]
    return found, kv


@pytest.fixture(scope="module")
def batched(real_params, cases):
    """All ten prompts at once, in chunks of 64: their scores, and the cache as it is then (for one owner)."""
    config, params = real_params
    kv = init_kv(config, 1 + len(cases) * REAL_WIDTH, REAL_PAGE, "float32")
    return score_prompts(config, params, kv, [case["prompt_ids"] for case in cases], REAL_CHUNK)


def test_prompt_logprobs_and_greedy_tokens_equal_the_reference(real_params, cases, batched):
    config, params = real_params
    scored, kv = batched
    for case, (scores, _) in zip(cases, scored, strict=True):
        np.testing.assert_allclose(scores, case["prompt_logprobs"][1:], atol=0.01)

    drawn = [[int(best)] for _, best in scored]
    for count in range(1, len(cases[0]["greedy_ids"])):
        tokens = np.array([[row[-1]] for row in drawn], np.int32)
        positions = np.array([[len(case["prompt_ids"]) + count - 1] for case in cases], np.int32)
        _, best, kv = real_step(config, params, kv, tokens, positions, real_tables(len(cases)), tokens)
        for row, token in zip(drawn, np.asarray(best)[:, 0], strict=True):
            row.append(int(token))
    for case, row in zip(cases, drawn, strict=True):
        assert row[: case["safe_length"]] == case["greedy_ids"][: case["safe_length"]]


def test_chunks_in_a_batch_equal_the_whole_prompt_alone(real_params, cases, batched):
    config, params = real_params
    longest = max(range(len(cases)), key=lambda row: len(cases[row]["prompt_ids"]))
    kv = init_kv(config, 1 + REAL_WIDTH, REAL_PAGE, "float32")
    ((scores, best),), _ = score_prompts(config, params, kv, [cases[longest]["prompt_ids"]], 128)
    np.testing.assert_allclose(scores, batched[0][longest][0], atol=1e-3)
    assert best == batched[0][longest][1]


@pytest.mark.parametrize(("dtype", "mean_error", "agreement"), [("bfloat16", 0.03, 0.96), ("int8", 0.1, 0.93)])
def test_smaller_dtypes_agree_with_float32(real, real_params, cases, dtype, mean_error, agreement):
    config, load = real
    texts = [case["prompt_ids"] + case["greedy_ids"] for case in cases]
    text = max(texts, key=len)[:128]
    tokens = np.array([text], np.int32)
    positions = np.arange(128, dtype=np.int32)[None]
    found = []
    for params, kind in ((real_params[1], "float32"), (load(dtype), dtype)):
        kv = init_kv(config, 1 + REAL_WIDTH, REAL_PAGE, kind)
        scores, best, _ = real_step(config, params, kv, tokens, positions, real_tables(1), np.roll(tokens, -1))
        found.append((np.asarray(scores)[0, :-1], np.asarray(best)[0]))
    assert np.abs(found[0][0] - found[1][0]).mean() < mean_error
    assert (found[0][1] == found[1][1]).mean() > agreement
