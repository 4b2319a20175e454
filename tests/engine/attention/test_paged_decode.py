"""The decode kernel is attention: interpreted on a CPU, as it is on a GPU. And it is lowered for a GPU anywhere."""

import contextlib
import functools
import importlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.engine.attention.paged_decode import available, choose_splits, paged_decode, supports
from atomr_trio.engine.attention.reference import attend

# By its name: the package may give the name to the function.
module = importlib.import_module("atomr_trio.engine.attention.paged_decode")

pytestmark = pytest.mark.skipif(not available(), reason="this jax lowers no Pallas kernel to Triton")


@frozen
class Shape:
    """Static sizes: each costs a compilation, so what varies within one (lengths, tables, numbers) is drawn instead."""

    rows: int
    heads: int
    kv_heads: int
    dim: int
    page_size: int
    width: int
    window: int = 0
    soft_cap: float | None = None
    dtype: str = "float32"

    def __str__(self):
        return f"group{self.heads // self.kv_heads}-dim{self.dim}-page{self.page_size}-{self.dtype}"

    @property
    def time(self):
        return self.width * self.page_size

    @property
    def options(self):
        # Scores large enough for weights that differ, and for a soft-cap that bends.
        return {"scale": 4 * self.dim**-0.5, "window": self.window, "soft_cap": self.soft_cap}


SHAPES = [
    Shape(rows=3, heads=4, kv_heads=4, dim=64, page_size=16, width=11),
    Shape(rows=2, heads=6, kv_heads=2, dim=128, page_size=32, width=5, window=37),
    Shape(rows=2, heads=8, kv_heads=2, dim=256, page_size=16, width=6, window=16, soft_cap=3.0),
    Shape(rows=2, heads=16, kv_heads=2, dim=64, page_size=64, width=4, soft_cap=2.0, dtype="bfloat16"),
    # A group wider than a tile, a page that is no power of two, and as many splits as there can be.
    Shape(rows=1, heads=18, kv_heads=1, dim=64, page_size=24, width=9, dtype="bfloat16"),
]


ON_GPU = jax.default_backend() == "gpu"


@functools.cache
def compiled(shape):
    program = jax.jit(functools.partial(paged_decode, interpret=not ON_GPU, **shape.options))
    # What is interpreted takes longer to optimize than to run.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", DEPRECATED, DeprecationWarning)
        return program.lower(*arguments_of(shape)).compile(None if ON_GPU else {"xla_backend_optimization_level": 0})


DEPRECATED = "The Pallas Triton backend is deprecated"


def arguments_of(shape, pages=None):
    pages = pages or shape.rows * shape.width + 1
    cache = jax.ShapeDtypeStruct((pages, shape.kv_heads, shape.page_size, shape.dim), shape.dtype)
    table = jax.ShapeDtypeStruct((shape.rows, shape.width), jnp.int32)
    q = jax.ShapeDtypeStruct((shape.rows, shape.heads, shape.dim), jnp.float32)
    return q, cache, cache, table, jax.ShapeDtypeStruct((shape.rows,), jnp.int32)


def seen(shape, positions):
    time, positions = np.arange(shape.time), positions[:, None]
    return (time <= positions) & ((time > positions - shape.window) | (shape.window == 0))


def paged(shape, dense, tables, hole):
    """Lay ``[rows, kv_heads, time, dim]`` out in pages; what no row has is ``hole``."""
    pages = np.full((shape.rows * shape.width + 1, shape.kv_heads, shape.page_size, shape.dim), hole, dense.dtype)
    parts = dense.reshape(shape.rows, shape.kv_heads, shape.width, shape.page_size, shape.dim)
    pages[tables] = parts.swapaxes(1, 2)
    return pages


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@settings(deadline=None, max_examples=12, derandomize=True)
@given(data=st.data())
def test_it_is_attention_and_reads_nothing_that_is_not_seen(shape, data):
    positions = np.array([data.draw(st.integers(0, shape.time - 1)) for _ in range(shape.rows)], np.int32)
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    tables = (rng.permutation(shape.rows * shape.width) + 1).reshape(shape.rows, -1).astype(np.int32)
    q = rng.standard_normal((shape.rows, shape.heads, shape.dim), np.float32)
    size = shape.rows, shape.kv_heads, shape.time, shape.dim
    k, v = (rng.standard_normal(size, np.float32).astype(jnp.dtype(shape.dtype)) for _ in range(2))
    rounded = q.astype(k.dtype)
    want = attend(rounded[:, None], jnp.asarray(k), jnp.asarray(v), positions[:, None], **shape.options)[:, 0]

    hidden = ~seen(shape, positions)[:, None, :, None]
    k, v = (np.where(hidden, np.array(np.nan, x.dtype), x) for x in (k, v))
    # Neither pages that a row no longer sees, nor those that it does not have yet, need be in its table.
    pages_seen = seen(shape, positions).reshape(shape.rows, shape.width, -1).any(axis=2)
    pages = [paged(shape, x, tables, np.nan) for x in (k, v)]
    got = compiled(shape)(q, *pages, np.where(pages_seen, tables, 0), positions)

    assert got.dtype == jnp.float32
    # bfloat16: the weights are rounded to 8 bits before they meet the values.
    np.testing.assert_allclose(got, want, atol=2e-5 if shape.dtype == "float32" else 0.04)


def test_a_row_that_is_padding_gets_the_first_value_of_page_0():
    shape = SHAPES[0]
    rng = np.random.default_rng(0)
    keys, values = (rng.standard_normal(arguments_of(shape)[1].shape, np.float32) for _ in range(2))
    q = rng.standard_normal((shape.rows, shape.heads, shape.dim), np.float32)
    tables = np.zeros((shape.rows, shape.width), np.int32)
    got = compiled(shape)(q, keys, values, tables, np.zeros(shape.rows, np.int32))
    np.testing.assert_allclose(got, np.tile(values[0, :, 0].reshape(-1), (shape.rows, 1)), rtol=1e-6)


@given(st.integers(1, 300), st.integers(1, 64), st.integers(1, 200_000), st.sampled_from([16, 32, 64, 128]))
def test_splits_fill_the_device_and_none_is_always_empty(rows, kv_heads, capacity, tile):
    splits = choose_splits(rows, kv_heads, capacity, tile)
    assert 1 <= splits <= 32
    assert (splits - 1) * tile < capacity
    # One fewer would leave room on the device.
    assert splits == 1 or (splits - 1) * rows * kv_heads < 264


@pytest.mark.parametrize(
    ("dtype", "head_dim", "expected"),
    [
        ("bfloat16", 64, True),
        ("float16", 128, True),
        ("float32", 256, True),
        ("bfloat16", 96, False),
        ("bfloat16", 8, False),
        ("bfloat16", 512, False),
        ("uint16", 64, False),
    ],
)
def test_what_it_supports(dtype, head_dim, expected):
    assert supports(dtype=dtype, head_dim=head_dim) is expected


@pytest.mark.parametrize("missing", ["pl", "triton"])
def test_without_the_lowering_it_says_that_it_is_not_available(missing, monkeypatch):
    assert available()
    monkeypatch.setattr(module, missing, module._optional("jax.experimental.pallas_is_gone"))
    assert not available()


@contextlib.contextmanager
def gpu_in_name():
    """From jax 0.11 on, lowering wants to know which GPU it is for, and warns that Triton's days are numbered."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", DEPRECATED, DeprecationWarning)
        if jax.__version_info__ < (0, 11):
            yield
            return
        device = jax.sharding.AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
        with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=device)):
            yield


@pytest.mark.parametrize(
    "shape",
    [
        Shape(rows=8, heads=32, kv_heads=8, dim=128, page_size=32, width=128, dtype="bfloat16"),
        Shape(rows=2, heads=8, kv_heads=4, dim=256, page_size=16, width=9, window=4096, soft_cap=50.0, dtype="float32"),
    ],
    ids=str,
)
def test_it_is_lowered_for_a_gpu(shape):
    program = jax.jit(functools.partial(paged_decode, **shape.options))
    with gpu_in_name():
        # More than 2 ** 32 bytes: indices of 64 bits.
        traced = program.trace(*arguments_of(shape, pages=600_000))
        assert "__gpu$xla.gpu.triton" in traced.lower(lowering_platforms=("cuda",)).as_text()
