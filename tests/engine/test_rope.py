"""Rotary frequencies against formulas written anew, and the rotation itself."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_decoder import inverse_frequencies

from atomr_trio.engine.rope import angles, rotate
from atomr_trio.engine.rope_scaling import LinearScaling, Llama3Scaling, RopeTable, YarnScaling

dims = st.sampled_from([2, 8, 64, 128, 256])
thetas = st.sampled_from([1e4, 5e5, 1e6])
factors = st.floats(1.0, 64.0)
contexts = st.sampled_from([2048, 4096, 8192, 32_768])


def check(table, dim, scaling, context=4096):
    expected, amplitude = inverse_frequencies(dim, table.theta, scaling, context)
    found = table.inverse_frequencies(dim)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.array(expected), rtol=2e-6)
    assert math.isclose(table.amplitude, amplitude)


@given(dims, thetas)
def test_plain(dim, theta):
    check(RopeTable(theta=theta), dim, None)


@given(dims, thetas, factors)
def test_linear(dim, theta, factor):
    check(RopeTable(theta=theta, scaling=LinearScaling(factor=factor)), dim, {"type": "linear", "factor": factor})


@given(dims, thetas, factors, contexts, st.floats(0.5, 2.0), st.floats(2.5, 8.0))
def test_llama3(dim, theta, factor, context, low, high):
    ours = Llama3Scaling(factor=factor, low_freq_factor=low, high_freq_factor=high, original_context=context)
    theirs = {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": context,
    }
    check(RopeTable(theta=theta, scaling=ours), dim, theirs)


@given(dims, thetas, factors, contexts, st.sampled_from([16.0, 32.0]), st.sampled_from([1.0, 2.0]))
def test_yarn(dim, theta, factor, context, fast, slow):
    ours = YarnScaling(factor=factor, original_context=context, beta_fast=fast, beta_slow=slow)
    theirs = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": context}
    check(RopeTable(theta=theta, scaling=ours), dim, theirs | {"beta_fast": fast, "beta_slow": slow})


def test_yarn_keeps_fast_pairs_and_slows_slow_ones():
    plain = RopeTable(theta=1e6).inverse_frequencies(128)
    scaled = RopeTable(theta=1e6, scaling=YarnScaling(factor=4.0, original_context=32_768)).inverse_frequencies(128)
    np.testing.assert_array_equal(scaled[:10], plain[:10])
    np.testing.assert_allclose(scaled[-10:], plain[-10:] / 4, rtol=1e-6)


def test_a_given_attention_factor_wins():
    assert YarnScaling(factor=4.0, original_context=10, attention_factor=1.25).amplitude == 1.25
    assert YarnScaling(factor=1.0, original_context=10).amplitude == 1.0


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_absurd_values_are_named(value):
    with pytest.raises(ValueError, match="factor of the rotary scaling"):
        LinearScaling(factor=value)
    with pytest.raises(ValueError, match="base of the rotary"):
        RopeTable(theta=value)
    with pytest.raises(ValueError, match="above low_freq_factor"):
        Llama3Scaling(factor=8.0, low_freq_factor=4.0, high_freq_factor=1.0, original_context=8192)


def test_rotation_turns_pairs_of_halves_and_scales_them():
    table = RopeTable(theta=100.0)
    cos, sin = angles(jnp.arange(3), jnp.array(table.inverse_frequencies(4)), 2.0)
    x = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
    found = np.asarray(rotate(jnp.array(x), cos, sin))
    for position in range(3):
        for pair, frequency in enumerate((1.0, 0.1)):
            turned = 2.0 * (x[pair] + 1j * x[pair + 2]) * np.exp(1j * position * frequency)
            np.testing.assert_allclose(found[position, [pair, pair + 2]], [turned.real, turned.imag], rtol=1e-5)
