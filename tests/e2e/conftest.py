import pytest

from .kit import served


@pytest.fixture(scope="session")
def server(smollm2_path):
    """The default model in float32, as `make serve` serves it, on a free port."""
    with served("--dtype", "float32") as running:
        yield running
