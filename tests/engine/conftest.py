"""What the engine's tests share: compiled programs, so that each shape is compiled once a run."""

import pytest


@pytest.fixture(scope="session")
def programs_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("programs"))
