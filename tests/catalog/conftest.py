import pytest

from .kit import open_shop


@pytest.fixture
def shop(tmp_path, monkeypatch):
    made = open_shop(tmp_path)
    for name, value in made.env.items():
        monkeypatch.setenv(name, value)
    return made
