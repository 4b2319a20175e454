"""The guide's project is a project: its files are written out, and pytest runs them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "testing.md"
FILES = dict(re.findall(r"```python\n# (\S+\.py)\n(.*?)```", GUIDE.read_text(), re.DOTALL))


def test_every_block_is_a_file():
    assert len(FILES) == GUIDE.read_text().count("```python")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("guide")
    for name, code in FILES.items():
        (root / name).write_text(code)
    return root


def test_the_guides_tests_pass(project):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:anyio", "-p", "no:cacheprovider", "-W", "error", "."]
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"\b19 passed", result.stdout), result.stdout
