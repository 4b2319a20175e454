"""Async tests run under Trio, by the package's own plugin; the fixtures every room shares."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["atomr_trio.testing.pytest_plugin"]

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# A change is judged by examples that are the same each time: what fails is the change's own. New ones are drawn by
# `make test`, and many more by `make fuzz`.
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("HYPOTHESIS_PROFILE") == "ci" else "default")

FUZZ_FACTOR = 20


def pytest_collection_modifyitems(items):
    """With HYPOTHESIS_PROFILE=fuzz every property gets many times its examples, whatever number it says itself."""
    if os.environ.get("HYPOTHESIS_PROFILE") != "fuzz":
        return
    for item in items:
        # A profile would not do: the decorator on the test overrides it.
        usual = getattr(getattr(item, "obj", None), "_hypothesis_internal_use_settings", None)
        if usual is not None:
            more = settings(usual, max_examples=FUZZ_FACTOR * usual.max_examples)
            item.obj._hypothesis_internal_use_settings = more


@pytest.fixture(scope="session")
def data_dir() -> Path:
    return Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The default model, fetched once into the user's cache."""
    from atomr_trio.catalog import default_catalog, ensure_model

    return ensure_model(default_catalog(), "smollm2-135m-instruct")


@pytest.fixture(scope="session")
def gemma3_path() -> Path:
    """Gemma 3 270M, fetched once into the user's cache."""
    from atomr_trio.catalog import default_catalog, ensure_model

    return ensure_model(default_catalog(), "gemma3-270m")
