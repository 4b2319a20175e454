"""The call that cuDNN is asked with is attention: in XLA's implementation of it, and on a GPU in cuDNN's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.engine.attention.flash_prefill import flash_prefill, supports
from atomr_trio.engine.attention.reference import attend

TIME, CHUNK, DIM = 48, 16, 24
SCALE = 3 * DIM**-0.5


@functools.cache
def compiled(window, dtype):
    implementation = "cudnn" if jax.default_backend() == "gpu" and dtype == "bfloat16" else "xla"
    return jax.jit(functools.partial(flash_prefill, scale=SCALE, window=window, implementation=implementation))


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dtype", "window"), [(6, 2, "float32", 0), (4, 4, "bfloat16", 20), (6, 2, "bfloat16", 1)]
)
@settings(deadline=None, max_examples=15, derandomize=True)
@given(start=st.integers(0, TIME - 1), seed=st.integers(0, 1000))
def test_it_is_attention_wherever_the_chunk_starts(heads, kv_heads, dtype, window, start, seed):
    rng = np.random.default_rng(seed)
    q = jnp.asarray(rng.standard_normal((CHUNK, heads, DIM), np.float32), dtype)
    k, v = (rng.standard_normal((kv_heads, TIME, DIM), np.float32).astype(jnp.dtype(dtype)) for _ in range(2))
    positions = np.minimum(np.arange(start, start + CHUNK), TIME - 1)
    want = attend(q[None], jnp.asarray(k)[None], jnp.asarray(v)[None], positions[None], scale=SCALE, window=window)[0]
    # Beyond the chunk lies what another sequence left there.
    k[:, start + CHUNK :], v[:, start + CHUNK :] = 1e4, -1e4

    got = compiled(window, dtype)(q, k, v, np.int32(start))

    assert got.shape == (CHUNK, heads * DIM)
    assert got.dtype == dtype
    assert np.isfinite(np.asarray(got, np.float32)).all()
    tolerance = 1e-4 if dtype == "float32" else 0.05
    prompt = min(CHUNK, TIME - start)
    np.testing.assert_allclose(np.asarray(got, np.float32)[:prompt], want[:prompt], atol=tolerance)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, True),
        ({"dtype": "float16", "head_dim": 72, "chunk": 2}, True),
        ({"head_dim": 256}, True),
        ({"head_dim": 256, "compute_capability": (8, 9)}, False),
        ({"head_dim": 128, "compute_capability": (8, 0)}, True),
        ({"compute_capability": (7, 5)}, False),
        ({"head_dim": 264}, False),
        ({"head_dim": 100}, False),
        ({"dtype": "float32"}, False),
        ({"dtype": "uint16"}, False),
        ({"chunk": 1}, False),
        ({"soft_cap": 50.0}, False),
    ],
    ids=str,
)
def test_what_it_supports(changed, expected):
    asked = {"dtype": "bfloat16", "head_dim": 64, "chunk": 256, "soft_cap": None}
    assert supports(**asked | changed) is expected
