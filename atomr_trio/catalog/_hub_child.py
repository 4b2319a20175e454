"""Download one file from the Hugging Face hub. Run by path in a process of its own, not imported.

Arguments: repository, file name, revision, target folder, report file, bytes to keep free. The report is one JSON
object: ``size`` and ``sha256`` once known, then ``path``, or ``error`` (class names, most derived first) and
``message``.
"""
# pyright: reportUnknownVariableType=false

import json
import os
import shutil
import sys
from typing import Any


def _write(report: str, **fields: Any) -> None:
    with open(f"{report}.new", "w", encoding="utf-8") as file:
        json.dump(fields, file)
    os.replace(f"{report}.new", report)


def _fetch(repo: str, filename: str, revision: str, folder: str, report: str, margin: str) -> None:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    about = get_hf_file_metadata(hf_hub_url(repo, filename, revision=revision))
    etag = about.etag or ""
    # Large files carry their SHA-256 as entity tag, small ones a git hash.
    known = {"size": about.size or 0, "sha256": etag if len(etag) == 64 else None}
    _write(report, **known)
    needed, free = (about.size or 0) + int(margin), shutil.disk_usage(folder).free
    if free < needed:
        _write(report, error=["NoSpace"], message="", needed=needed, free=free)
        sys.exit(1)
    revision = about.commit_hash or revision
    path = hf_hub_download(repo, filename, revision=revision, local_dir=folder)
    _write(report, **known, path=path)


def main() -> None:
    """Fetch what the arguments name; the exit status is 0 when the report holds a path."""
    try:
        _fetch(*sys.argv[1:])
    except Exception as error:
        names = [cls.__name__ for cls in type(error).__mro__]
        _write(sys.argv[5], error=names, message=str(error), errno=getattr(error, "errno", None))
        sys.exit(1)


if __name__ == "__main__":
    main()
