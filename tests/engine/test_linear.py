"""Every form of a product gives the same product, and one over integers the same bits, whoever shares its batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.engine.linear import Int8Weight, best_activations, embedding, linear
from atomr_trio.engine.linear_forms import FORMS, candidates, choose_form, kind_of
from atomr_trio.engine.linear_rows import from_products, to_int8_rows

ROWS = [1, 2, 8, 33, 129]
jitted_rows, jitted_products = jax.jit(to_int8_rows, static_argnums=1), jax.jit(from_products)
INTEGER_FORMS = [form for form in FORMS if form.kind == "integers"]


def arrays(rows, seed=0, outputs=48, inputs=80):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, inputs), np.float32)
    return x, rng.standard_normal((outputs, inputs), np.float32)


def bf16(values):
    return jnp.asarray(values, jnp.bfloat16)


def f64(values):
    return np.asarray(values).astype(np.float64)


def int8_weight(w, activations="float", forms=()):
    values = np.clip(np.rint(w * 20), -127, 127).astype(np.int8)
    scale = np.linspace(0.01, 1, len(w)).astype(np.float32)
    return Int8Weight(jnp.asarray(values), jnp.asarray(scale), activations, forms)


def widened(weight):
    return f64(weight.values) * f64(weight.scale)[:, None]


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
def test_int8_under_float_rows(rows, dtype):
    x, w = arrays(rows)
    x, weight = jnp.asarray(x, dtype), int8_weight(w)
    got = jax.jit(linear)(x, weight)
    assert got.dtype == x.dtype
    tolerance = 1e-4 if dtype == "float32" else 2**-5
    np.testing.assert_allclose(f64(got), f64(x) @ widened(weight).T, rtol=tolerance, atol=10 * tolerance)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("activations", "steps"), [("int16", 127 * 256), ("int8", 127)])
def test_int8_under_rounded_rows(rows, dtype, activations, steps):
    x, w = arrays(rows)
    x, weight = jnp.asarray(x, dtype), int8_weight(w, activations)
    got = jax.jit(linear)(x, weight)
    assert got.dtype == x.dtype
    # Half a step of each input, in the worst case all to one side; and the result's own rounding.
    bound = np.abs(f64(x)).max(axis=1, keepdims=True) / steps / 2 * np.abs(widened(weight)).sum(axis=1)
    exact = f64(x) @ widened(weight).T
    assert (np.abs(f64(got) - exact) <= 1.01 * bound + np.abs(exact) * float(jnp.finfo(dtype).eps) + 1e-6).all()


@given(
    st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=5, max_size=5), min_size=3, max_size=3),
    st.sampled_from(["int16", "int8"]),
)
def test_rows_are_rounded_to_the_nearest_step(rows, activations):
    x = np.array(rows, np.float32)
    found = jitted_rows(x, activations)
    # Products with the unit matrix are the rows themselves.
    products = np.asarray(found.values).astype(np.int32)
    step = f64(found.scale)
    assert (np.abs(f64(jitted_products(products, found.scale)) - f64(x)) <= step * 0.501 + 1e-30).all()
    assert (step <= np.maximum(np.abs(x).max(axis=1, keepdims=True), 1e-30) / 127 * 1.001).all()
    assert (np.asarray(found.values) >= -128).all()


@pytest.mark.parametrize("form", INTEGER_FORMS, ids=lambda form: form.name)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_every_form_of_integer_products_gives_the_same_bits(form, data):
    # Few shapes, since each is compiled; the long one adds up more than float32 could count.
    rows, inputs = data.draw(st.sampled_from([(form.least, 7), (form.most or 5, 2100)]))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x, w = rng.integers(-128, 128, (rows, inputs), np.int8), rng.integers(-127, 128, (6, inputs), np.int8)
    extreme = data.draw(st.sampled_from([None, 127, -128]))
    if extreme is not None:
        x[:], w[:] = extreme, 127
    found = jax.jit(form.multiply)(x, w)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found, x.astype(np.int64) @ w.astype(np.int64).T)


@given(
    activations=st.sampled_from(["int16", "int8"]),
    form=st.sampled_from(INTEGER_FORMS),
    size=st.sampled_from([1e-20, 1.0, 1e20]),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_a_row_does_not_know_its_batch_mates_nor_the_form(activations, form, size, seed):
    rows, mates = (1, 0) if form.most else (1, 6)
    x, w = arrays(rows + mates, seed)
    x[rows:] *= np.float32(size)
    tuned = ((64, form.name),)
    alone = jax.jit(linear)(x[:rows], int8_weight(w, activations))
    together = jax.jit(linear)(x, int8_weight(w, activations, tuned))
    np.testing.assert_array_equal(np.asarray(together)[:rows], np.asarray(alone))


def test_rows_of_zeros_give_zeros():
    _, w = arrays(1)
    for activations in ("int16", "int8"):
        assert (np.asarray(jitted_rows(np.zeros((3, 5), np.float32), activations).scale) > 0).all()
        assert not np.asarray(jax.jit(linear)(jnp.zeros((3, w.shape[1])), int8_weight(w, activations))).any()


def test_leading_axes_are_kept():
    x, w = arrays(6)
    got = linear(jnp.asarray(x).reshape(2, 3, -1), jnp.asarray(w))
    np.testing.assert_allclose(got.reshape(6, -1), x @ w.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["bfloat16", "int8"])
def test_on_a_cpu_one_row_and_several_never_share_a_form_of_floats(kind):
    assert choose_form(kind, "cpu", 1) is not choose_form(kind, "cpu", 2)
    assert choose_form(kind, "gpu", 1) is choose_form(kind, "gpu", 2)


@given(
    st.sampled_from(["float32", "bfloat16", "int8", "integers"]), st.sampled_from(["cpu", "gpu"]), st.integers(1, 999)
)
def test_a_form_is_found_for_everything_and_a_name_that_does_not_apply_is_ignored(kind, backend, rows):
    applicable = candidates(kind, backend, rows)
    assert choose_form(kind, backend, rows) is choose_form(kind, backend, rows, "no such form") is applicable[0]
    for form in applicable:
        assert choose_form(kind, backend, rows, form.name) is form
    if kind != "integers":
        # They differ in roundings: nothing measured may choose between them.
        assert backend != "cpu" or len({form.name for form in applicable[:1]}) == 1


def test_unknown_weights_are_refused():
    with pytest.raises(ValueError, match="float16 cannot be multiplied"):
        kind_of("float16")


def test_the_measured_form_is_the_one_of_the_next_larger_row_count():
    weight = int8_weight(arrays(1)[1], "int16", ((2, "a"), (8, "b")))
    assert [weight.form_for(rows) for rows in (1, 2, 3, 8, 9)] == ["a", "a", "b", "b", None]


def test_activations_follow_the_backend():
    assert (best_activations("cpu"), best_activations("gpu")) == ("int16", "float")


@pytest.mark.skipif(jax.default_backend() == "cpu", reason="needs a GPU")
def test_on_a_gpu_no_wide_copy_of_the_weights_is_made():
    x, w = arrays(1, outputs=2048, inputs=1024)
    compiled = jax.jit(linear).lower(bf16(x), int8_weight(w)).compile()
    assert "bf16[2048,1024]" not in entry_computation(compiled.as_text())


def entry_computation(hlo):
    """The instructions whose results lie in memory: those outside of fused computations."""
    return hlo[hlo.index("ENTRY ") :]


def test_embedding_rows():
    _, w = arrays(1)
    ids = jnp.asarray([[3, 0], [47, 3]])
    np.testing.assert_array_equal(embedding(ids, jnp.asarray(w)), w[np.asarray(ids)])
    np.testing.assert_array_equal(embedding(ids, bf16(w)), f64(bf16(w))[np.asarray(ids)])
    quantized = Int8Weight(jnp.asarray(np.rint(w), jnp.int8), jnp.full(len(w), 0.5))
    np.testing.assert_array_equal(embedding(ids, quantized), np.rint(w)[np.asarray(ids)] / 2)
