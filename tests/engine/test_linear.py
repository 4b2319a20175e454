"""Every form of a product gives the same product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from atomr_trio.engine.linear import Int8Weight, choose_form, embedding, linear

ROWS = [1, 2, 8, 33, 129]


def arrays(rows, seed=0, outputs=48, inputs=80):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, inputs), np.float32)
    return x, rng.standard_normal((outputs, inputs), np.float32)


def bf16(values):
    return jnp.asarray(values, jnp.bfloat16)


def f64(values):
    return np.asarray(values).astype(np.float64)


@pytest.mark.parametrize("rows", ROWS)
def test_float32(rows):
    x, w = arrays(rows)
    got = jax.jit(linear)(x, jnp.asarray(w))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, f64(x) @ f64(w).T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", ROWS)
def test_bfloat16_rows_give_bfloat16(rows):
    x, w = map(bf16, arrays(rows))
    got = jax.jit(linear)(x, w)
    assert got.dtype == jnp.bfloat16
    # One rounding to 8 bits of the exact product.
    np.testing.assert_allclose(f64(got), f64(x) @ f64(w).T, rtol=2**-7, atol=1e-3)


@pytest.mark.parametrize("rows", ROWS)
def test_float32_rows_over_bfloat16_keep_the_result_exact(rows):
    x, w = map(bf16, arrays(rows))
    got = jax.jit(linear)(x.astype(jnp.float32), w)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, f64(x) @ f64(w).T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_int8(rows, dtype):
    x, w = arrays(rows)
    x = jnp.asarray(x, dtype)
    values = np.rint(w * 20).astype(np.int8)
    scale = np.linspace(0.01, 1, len(w)).astype(np.float32)
    got = jax.jit(linear)(x, Int8Weight(jnp.asarray(values), jnp.asarray(scale)))
    assert got.dtype == x.dtype
    tolerance = 1e-4 if dtype == "float32" else 2**-5
    np.testing.assert_allclose(f64(got), f64(x) @ (f64(values) * scale[:, None]).T, rtol=tolerance, atol=10 * tolerance)


def test_leading_axes_are_kept():
    x, w = arrays(6)
    got = linear(jnp.asarray(x).reshape(2, 3, -1), jnp.asarray(w))
    np.testing.assert_allclose(got.reshape(6, -1), x @ w.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_on_a_cpu_one_row_and_several_never_share_a_form(dtype):
    assert choose_form("cpu", dtype, 1) is not choose_form("cpu", dtype, 2)
    assert choose_form("gpu", dtype, 1) is choose_form("gpu", dtype, 2)


def test_embedding_rows():
    _, w = arrays(1)
    ids = jnp.asarray([[3, 0], [47, 3]])
    np.testing.assert_array_equal(embedding(ids, jnp.asarray(w)), w[np.asarray(ids)])
    np.testing.assert_array_equal(embedding(ids, bf16(w)), f64(bf16(w))[np.asarray(ids)])
    quantized = Int8Weight(jnp.asarray(np.rint(w), jnp.int8), jnp.full(len(w), 0.5))
    np.testing.assert_array_equal(embedding(ids, quantized), np.rint(w)[np.asarray(ids)] / 2)
