"""Every back-end attends as the reference does, to what the cache holds after the new tokens are in."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.engine.attention import (
    AttentionSpec,
    attend_blocked,
    attend_pages,
    attend_view,
    choose_backend,
    fill_row,
)
from atomr_trio.engine.attention.gpu import GpuAttention
from atomr_trio.engine.attention.reference import attend
from atomr_trio.engine.kv_cache import find_slots

PAGE, WIDTH, KV_HEADS, DIM = 4, 5, 2, 16
TIME = PAGE * WIDTH
GPU = GpuAttention((9, 0), interpret=True, implementation="xla")


def normal(rng, *shape, dtype="float32"):
    return jnp.asarray(rng.standard_normal(shape), dtype)


def past(pages, tables):
    """[B, kv_heads, T, D] of what the pages of each row hold."""
    return np.stack([np.concatenate([np.asarray(pages[p], np.float32) for p in row], axis=1) for row in tables])


def case(seed, rows, chunk, dtype):
    rng = np.random.default_rng(seed)
    cache = tuple(normal(rng, 1 + rows * WIDTH, KV_HEADS, PAGE, DIM, dtype=dtype) for _ in range(2))
    tables = rng.permutation(rows * WIDTH).reshape(rows, WIDTH) + 1
    starts = rng.integers(0, TIME - chunk + 1, rows)
    positions = jnp.asarray(starts[:, None] + np.arange(chunk), jnp.int32)
    q, k, v = (normal(rng, rows, chunk, heads, DIM) for heads in (3 * KV_HEADS, KV_HEADS, KV_HEADS))
    return cache, jnp.asarray(tables, jnp.int32), positions, q, k, v


def filled(cache, tables, time):
    """A view of these rows; what it held before is noise."""
    rng, rows = np.random.default_rng(1), len(tables)
    view = [(normal(rng, rows, KV_HEADS, DIM, time), normal(rng, rows, KV_HEADS, time, DIM))]
    for row in range(rows):
        view = fill_row([cache], view, jnp.int32(row), tables[row])
    return view


specs = st.builds(
    AttentionSpec, st.sampled_from([0.25, 1.0]), st.sampled_from([0, 1, 3, 7]), st.sampled_from([None, 5.0])
)


@pytest.mark.parametrize(
    ("backend", "dtype", "tolerance"),
    [
        (attend_pages, "float32", 1e-5),
        # Blocks of one page, of two (the table is no multiple of it), and of more than there are.
        (partial(attend_blocked, block=PAGE), "float32", 1e-5),
        (partial(attend_blocked, block=2 * PAGE + 1), "float32", 1e-5),
        (attend_blocked, "float32", 1e-5),
        (GPU, "bfloat16", 0.03),
    ],
    ids=["pages", "blocks", "double-blocks", "block", "gpu"],
)
@settings(max_examples=8)
@given(seed=st.integers(0, 999), rows=st.integers(1, 3), chunk=st.sampled_from([1, 1, 4, 9]), spec=specs)
def test_pages(backend, dtype, tolerance, seed, rows, chunk, spec):
    cache, tables, positions, q, k, v = case(seed, rows, chunk, dtype)
    slots = find_slots([cache], positions, tables)
    got, after = jax.jit(backend, static_argnums=0)(spec, cache, q, k, v, slots)
    keys, values = (past(np.asarray(pages, np.float32), np.asarray(tables)) for pages in after)
    wanted = attend(q, keys, values, positions, scale=spec.scale, window=spec.window, soft_cap=spec.soft_cap)
    np.testing.assert_allclose(got, wanted, atol=tolerance, rtol=tolerance)
    # The new tokens are where their positions say, and nothing else has changed.
    for row, place in np.ndindex(rows, chunk):
        position = int(positions[row, place])
        np.testing.assert_array_equal(keys[row, :, position], np.asarray(k[row, place].astype(dtype), np.float32))
    before = past(np.asarray(cache[0], np.float32), np.asarray(tables))
    untouched = ~np.isin(np.arange(TIME)[None], np.asarray(positions)) if rows == 1 else np.zeros((1, TIME), bool)
    np.testing.assert_array_equal(keys[0][:, untouched[0]], before[0][:, untouched[0]])


@settings(max_examples=8)
@given(seed=st.integers(0, 999), rows=st.integers(1, 4), data=st.data(), spec=specs)
def test_a_view_equals_its_pages(seed, rows, data, spec):
    """Rows that pad write nowhere: not into the garbage page's row, and not into their own row of the view."""
    cache, tables, positions, q, k, v = case(seed, rows, 1, "float32")
    padding = np.array(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)))
    positions = jnp.where(padding[:, None], -1, positions)
    slots = find_slots([cache], positions, tables)
    view = filled(cache, tables, TIME)
    got, after = jax.jit(attend_view, static_argnums=0)(spec, (*cache, *view[0]), q, k, v, slots)
    wanted, pages = attend_pages(spec, cache, q, k, v, slots)
    np.testing.assert_allclose(got[~padding], wanted[~padding], atol=1e-5)
    for mine, theirs in zip(after[:2], pages, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    keys, values = (past(np.asarray(pool), np.asarray(tables)) for pool in pages)
    np.testing.assert_array_equal(after[2], keys.swapaxes(2, 3))
    np.testing.assert_array_equal(after[3], values)


@settings(max_examples=8)
@given(seed=st.integers(0, 999), padding=st.integers(1, 8), spec=specs)
def test_padding_of_a_chunk_neither_counts_nor_makes_nan(seed, padding, spec):
    """What it computes goes to the garbage page in the next layer, where a NaN would stay."""
    cache, tables, positions, q, k, v = case(seed, 1, 9, "float32")
    slots = find_slots([cache], positions.at[:, 9 - padding :].set(-1), tables)
    got, _ = attend_blocked(spec, cache, q, k, v, slots, block=PAGE)
    wanted, _ = attend_pages(spec, cache, q, k, v, slots)
    np.testing.assert_allclose(got[:, : 9 - padding], wanted[:, : 9 - padding], atol=1e-5)
    assert np.isfinite(got).all()


def test_only_a_cuda_gpu_gets_its_back_end():
    assert choose_backend("auto", "cpu", None) is attend_blocked
    assert choose_backend("xla", "cpu", None) is attend_pages
    assert choose_backend("xla", "gpu", (9, 0)) is attend_pages
    assert choose_backend("auto", "gpu", None) is attend_pages
    assert choose_backend("auto", "gpu", (9, 0)) == GpuAttention((9, 0))
