"""The definition of attention, against one that is written a number at a time."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.engine.attention.reference import attend

TIME, HEADS, KV_HEADS, DIM = 9, 4, 2, 3


def one_number_at_a_time(q, k, v, position, *, scale, window, soft_cap):
    """One query ``[DIM]`` over the keys ``[TIME, DIM]`` of its head."""
    seen = [at for at in range(TIME) if at <= position and (window == 0 or position - at < window)]
    scores = [scale * sum(a * b for a, b in zip(q, k[at], strict=True)) for at in seen]
    if soft_cap is not None:
        scores = [soft_cap * math.tanh(score / soft_cap) for score in scores]
    weights = [math.exp(score) for score in scores]
    return [sum(w * v[at][d] for w, at in zip(weights, seen, strict=True)) / sum(weights) for d in range(DIM)]


@pytest.mark.parametrize(("window", "soft_cap"), [(0, None), (1, None), (4, 1.5)])
@settings(deadline=None, max_examples=10)
@given(positions=st.lists(st.integers(0, TIME - 1), min_size=2, max_size=2), seed=st.integers(0, 1000))
def test_it_is_the_weighted_mean_of_the_values_that_are_seen(positions, seed, window, soft_cap):
    rng = np.random.default_rng(seed)
    q = rng.standard_normal((1, 2, HEADS, DIM))
    k, v = (rng.standard_normal((1, KV_HEADS, TIME, DIM)) for _ in range(2))
    options = {"scale": 0.7, "window": window, "soft_cap": soft_cap}
    arrays = (jnp.asarray(x, jnp.float32) for x in (q, k, v))
    got = attend(*arrays, jnp.asarray([positions]), **options)
    want = [
        [one_number_at_a_time(q[0, c, h], k[0, h // 2], v[0, h // 2], positions[c], **options) for h in range(HEADS)]
        for c in range(2)
    ]
    np.testing.assert_allclose(got, np.reshape(want, (1, 2, HEADS * DIM)), atol=1e-5)
