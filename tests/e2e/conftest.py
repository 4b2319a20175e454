import pytest

from .kit import served


# Of the package and not of the session: its device process would compile in the background of all other tests.
@pytest.fixture(scope="package")
def server(smollm2_path):
    """The default model in float32, as `make serve` serves it, on a free port."""
    with served("--dtype", "float32") as running:
        yield running
