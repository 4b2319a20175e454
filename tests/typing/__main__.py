"""Runs pyright over the fixtures and compares what it reports with what they expect."""

import json
import subprocess
import sys
from pathlib import Path

from ._compare import differences

HERE = Path(__file__).parent
FIXTURES = [HERE / "accepted.py", HERE / "rejected.py"]


def main() -> int:
    command = [sys.executable, "-m", "pyright", "--outputjson", *map(str, FIXTURES)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=HERE.parents[1], check=False)
    report = json.loads(done.stdout)
    found = differences({str(path): path.read_text(encoding="utf-8") for path in FIXTURES}, report)
    print("\n".join(found) or f"typing fixtures: {report['summary']['errorCount']} errors, each one expected")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
