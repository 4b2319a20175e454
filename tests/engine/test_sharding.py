"""A model dealt to several devices: the same answers, each device with its share, and no more talk than there must be.

Devices are simulated: see `sharding_work`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import ModelLoadError
from atomr_trio.engine.config import ModelConfig
from atomr_trio.engine.device import Device
from atomr_trio.engine.environment import child_environment
from atomr_trio.engine.settings import EngineSettings
from atomr_trio.engine.sharding import ONE_DEVICE, Layout
from atomr_trio.engine.shares import check_shares, fused, split_axis

WORK = Path(__file__).with_name("sharding_work.py")
FLAGS = [
    "--xla_force_host_platform_device_count=8",
    # Nothing here runs for long: most of the time would go to LLVM.
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
]
RUNS = [("float32", 2), ("int8", 8)]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    flags = {"XLA_FLAGS": " ".join(FLAGS), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, str(WORK), str(tmp_path_factory.mktemp("work"))],
        env=child_environment({**os.environ, **flags}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(("dtype", "count"), RUNS)
def test_answers_are_those_of_one_device(work, dtype, count):
    one, several = work[dtype]["1"], work[dtype][str(count)]
    assert several["cold"] == one["cold"]
    assert several["warm"] == one["warm"]
    assert several["device"] == f"{count} x {one['device']}"


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_prompts_come_from_the_prefix_cache_the_second_time(work, dtype):
    one = work[dtype]["1"]
    assert [tokens for tokens, _ in one["warm"]] == [tokens for tokens, _ in one["cold"]]
    assert [cached for _, cached in one["cold"]] == [0, 0, 0, 0]
    assert [cached for _, cached in one["warm"]] == [0, 8, 16, 20]
    # Otherwise all of the above would say little.
    assert len({tuple(tokens) for tokens, _ in one["cold"]}) == 4


def test_several_tokens_at_once_are_those_of_single_steps(work):
    looped, one = work["looped"], work["float32"]["1"]
    assert [tokens for tokens, _ in looped["answers"]] == [tokens for tokens, _ in one["cold"]]
    assert looped["in place"]["views"] == looped["in place"]["view"]


def share(work, dtype, count, part, name):
    whole, one = work[dtype][str(count)][part][name]
    return [a / b for a, b in zip(whole, one, strict=True)]


@pytest.mark.parametrize(("dtype", "count"), RUNS)
def test_each_device_has_its_share(work, dtype, count):
    values = ".values" if dtype == "int8" else ""
    for matrix in ("qkv", "gate_up"):
        assert share(work, dtype, count, "layer", f"['{matrix}']{values}") == [count, 1]
    for matrix in ("attn_out", "down"):
        assert share(work, dtype, count, "layer", f"['{matrix}']{values}") == [1, count]
    for half in ("[0]", "[1]"):
        assert share(work, dtype, count, "pages", half) == [1, count, 1, 1]
        assert share(work, dtype, count, "view", half) == [1, count, 1, 1]
    assert share(work, dtype, count, "layer", "['attn_norm']") == [1]
    # 300 words cannot be divided by 8: then everybody has all.
    assert share(work, dtype, count, "embed", values) == [count if count != 8 else 1, 1]


def test_scales_go_with_their_rows(work):
    assert share(work, "int8", 8, "layer", "['qkv'].scale") == [8]
    assert share(work, "int8", 8, "layer", "['down'].scale") == [1]


@pytest.mark.parametrize("kind", ["view", "prefill"])
def test_devices_add_up_twice_a_layer(work, kind):
    twice = 2 * work["layers"]
    # Once more to look words up in a vocabulary that is dealt, too; and its logits are put together at the end.
    assert work["float32"]["2"]["collectives"][kind] == {"all-reduce": twice + 1, "all-gather": 1}
    # Eight devices have the whole vocabulary; rows that are rounded have one scale each, the largest of all channels.
    assert work["int8"]["8"]["collectives"][kind] == {"all-reduce": 2 * twice}


def test_filling_a_view_and_drawing_is_every_device_s_own_business(work):
    for dtype, count in RUNS:
        programs = work[dtype][str(count)]["collectives"]
        assert programs["fill"] == programs["sample"] == {}


@pytest.mark.parametrize(("dtype", "count"), RUNS)
def test_pages_and_views_are_changed_in_place(work, dtype, count):
    in_place = work[dtype][str(count)]["in place"]
    assert in_place == work[dtype]["1"]["in place"]
    pages = 2 * work["layers"]
    assert [sum(in_place[kind].values()) for kind in ("prefill", "view", "fill")] == [pages, 2 * pages, pages]


def test_one_device_talks_to_nobody(work):
    assert set(map(str, work["float32"]["1"]["collectives"].values())) == {"{}"}


def test_programs_come_back_from_the_persistent_cache(work):
    found, missed = work["cache"]
    assert found
    assert not missed
    assert work["again"]["cold"] == work["float32"]["2"]["cold"]


def test_refusals_say_what_does_not_fit(work):
    refusals = work["refusals"]
    assert "8 key-value heads cannot be divided evenly by tensor_parallel=3" in refusals["heads"]
    assert "tensor_parallel=16, but the number of devices here is 8" in refusals["devices"]
    assert "a model of your own lies on one device" in refusals["own"]


@pytest.mark.parametrize("family", ["llama3", "gemma3"])
def test_biases_norms_and_windows_are_dealt_right(work, family):
    assert work["families"][family] < 1e-5


@pytest.mark.parametrize(("kernel", "distance"), [("decode", 1e-6), ("prefill", 1e-2)])
def test_the_kernels_of_a_gpu_attend_with_the_heads_of_one_device(work, kernel, distance):
    assert work["kernels"][kernel] < distance


def test_sizes_that_cannot_be_divided_are_named():
    check_shares(ModelConfig.tiny(num_kv_heads=4), 4)
    with pytest.raises(ModelLoadError, match=r"its 2 key-value heads .* tensor_parallel=4"):
        check_shares(ModelConfig.tiny(), 4)
    with pytest.raises(ModelLoadError, match=r"its 63 feed-forward channels .* tensor_parallel=2"):
        check_shares(ModelConfig.tiny(intermediate_size=63), 2)


def test_fewer_than_one_device_is_refused():
    with pytest.raises(ValueError, match="tensor_parallel must be at least 1, got 0"):
        EngineSettings(load_format="dummy", tensor_parallel=0)


@given(st.integers(1, 8), st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 3))
def test_each_cut_of_what_is_fused_has_its_share_of_every_part(count, sizes, width):
    parts = [np.full((count * size, width), at, np.float32) for at, size in enumerate(sizes)]
    for part in parts:
        part[:, 0] += np.arange(len(part)) * 10
    cuts = np.split(fused(parts, count), count)
    for index, cut in enumerate(cuts):
        mine = [part[index * size : (index + 1) * size] for part, size in zip(parts, sizes, strict=True)]
        assert np.array_equal(cut, np.concatenate(mine))


@given(st.sampled_from(["qkv", "down", "embed", "attn_norm", "inv_freq"]), st.integers(1, 64), st.integers(1, 8))
def test_what_is_dealt_can_be(name, size, count):
    axis = split_axis(name, (size, size), count)
    assert axis is None or size % count == 0
    assert name not in ("attn_norm", "inv_freq") or axis is None


def test_one_device_is_jax_s_own():
    assert Layout.over(1) == ONE_DEVICE
    assert (ONE_DEVICE.whole, ONE_DEVICE.heads) == (None, None)


def test_memory_is_counted_by_device():
    gpus = Device("gpu", "H100", 80, (9, 0), 4)
    assert (gpus.name, gpus.share(1000), gpus.share(1001)) == ("4 x H100", 250, 251)
    # Simulated devices live in one memory.
    assert Device("cpu", "cpu", None, None, 4).share(1000) == 1000
