"""Which dtype is chosen, and that it is told."""

import pytest

from atomr_trio.core import ModelLoadError
from atomr_trio.engine.loading import resolve_dtype


@pytest.mark.parametrize(
    ("platform", "own", "chosen"),
    [("cpu", False, "int8"), ("cpu", True, "float32"), ("gpu", False, "bfloat16"), ("gpu", True, "bfloat16")],
)
def test_auto_chooses_by_platform_and_rounds_no_ones_own_arrays(platform, own, chosen):
    assert resolve_dtype("auto", platform, own=own) == chosen


@pytest.mark.parametrize("asked", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_what_is_asked_for_is_taken(asked, platform):
    assert resolve_dtype(asked, platform) == asked


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ModelLoadError, match="unknown dtype `float64`"):
        resolve_dtype("float64", "cpu")
