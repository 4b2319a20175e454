"""What the description of the API allows, tried by schemathesis; in a process of its own, for it changes hypothesis."""

import subprocess
import sys
from pathlib import Path

ROOM = Path(__file__).with_name("fuzz_api.py")


def test_the_api_keeps_to_its_description():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOM)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOM.parents[2])
    assert done.returncode == 0, done.stdout[-10_000:]
