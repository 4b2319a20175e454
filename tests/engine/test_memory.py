"""How large the cache is made."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import ModelLoadError
from atomr_trio.engine.blocks import pages_for
from atomr_trio.engine.config import ModelConfig
from atomr_trio.engine.device import Device
from atomr_trio.engine.memory import _cgroup_bytes, available_bytes, choose_pages, page_bytes
from atomr_trio.engine.model import init_kv
from atomr_trio.engine.settings import EngineSettings

GIGABYTE = 2**30


def settings(**changes):
    return EngineSettings(load_format="dummy", **changes)


@given(
    max_model_len=st.none() | st.integers(2, 20_000),
    kv_tokens=st.none() | st.integers(2, 100_000),
    page_size=st.integers(1, 64),
    context=st.integers(2, 10_000),
    free=st.none() | st.integers(0, GIGABYTE),
    accelerator=st.booleans(),
)
def test_the_longest_sequence_always_fits_and_memory_is_never_exceeded(
    max_model_len, kv_tokens, page_size, context, free, accelerator
):
    asked = settings(max_model_len=max_model_len, kv_tokens=kv_tokens, page_size=page_size)
    try:
        pages, longest = choose_pages(asked, context, 1000, free, accelerator=accelerator)
    except ModelLoadError:
        assert free is not None
        assert int(free * 0.6) // 1000 * page_size < 2
        return
    assert pages_for(longest, page_size) <= pages
    assert 2 <= longest <= min(max_model_len or context, context, kv_tokens or context)
    if free is not None:
        assert pages * 1000 <= free


def test_defaults():
    assert choose_pages(settings(), 8192, 1, None, accelerator=False) == (1024, 8192)
    assert choose_pages(settings(), 2048, 1, None, accelerator=False) == (1024, 2048)
    assert choose_pages(settings(), 32768, 1, None, accelerator=False) == (4096, 32768)
    assert choose_pages(settings(), 8192, 1, None, accelerator=True) == (32 * 512, 8192)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_a_page_weighs_what_the_cache_weighs(dtype):
    config = ModelConfig.tiny()
    leaves = [leaf for pair in init_kv(config, 7, 4, dtype) for leaf in pair]
    assert page_bytes(config, 4, dtype) * 7 == sum(leaf.nbytes for leaf in leaves)


def test_a_containers_limit_counts(tmp_path):
    assert _cgroup_bytes(tmp_path) is None
    (tmp_path / "memory.current").write_text("300\n")
    (tmp_path / "memory.max").write_text("1000\n")
    assert _cgroup_bytes(tmp_path) == 700
    (tmp_path / "memory.max").write_text("max\n")
    assert _cgroup_bytes(tmp_path) is None


def test_a_device_of_its_own_says_what_it_has():
    assert available_bytes(Device("gpu", "H", 5)) == 5
    assert available_bytes(Device("gpu", "H", None)) is None
