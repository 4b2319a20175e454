"""A model file in a Hugging Face repository, through the optional `huggingface-hub`."""

import errno
import importlib.util
import json
import re
import shutil
from pathlib import Path
from typing import Any

from ._cache import MARGIN, ModelHome, file_sha256
from ._child import run_watched
from ._entries import HubFile, ModelEntry
from ._errors import CatalogError, DownloadFailed, ModelUnknown, NoSpace, ToolMissing
from ._progress import ProgressCallback

__all__ = ["classify_hub_failure", "fetch_hub_file", "hub_entry"]

_SCRIPT = Path(__file__).with_name("_hub_child.py")
_PART = r"[A-Za-z0-9_-][A-Za-z0-9._-]*"
_HUB_NAME = re.compile(rf"hf:(?P<repo>{_PART}/{_PART})/(?P<file>{_PART}(?:/{_PART})*)")


def hub_entry(name: str) -> ModelEntry:
    """Make a catalogue entry of ``hf:org/repo/file.gguf``.

    Raises:
        ModelUnknown: the name does not have that form.
    """
    match = _HUB_NAME.fullmatch(name)
    if match is None:
        raise ModelUnknown(name, known=(), near=("hf:org/repo/file.gguf",))
    repo, file = match["repo"], match["file"]
    folder, _, filename = f"hf/{repo}/{file}".rpartition("/")
    return ModelEntry(name=folder, filename=filename, sources=(HubFile(repo=repo, filename=file),))


def fetch_hub_file(source: HubFile, entry: ModelEntry, home: ModelHome, report: ProgressCallback) -> Path:
    """Download the file; needs the lock of ``home``.

    A broken transfer goes on where it stopped, a file that was already whole is not fetched again. What an attempt
    that was killed leaves is of use to older clients only, newer ones begin anew.

    Raises:
        ToolMissing: `huggingface-hub` is not installed.
        DownloadFailed: the hub cannot be reached, or does not have the file.
        HashMismatch: the file is not the expected one.
        NoSpace: the disk is full, or would be.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        hint = "Install it: pip install 'atomr-trio[hub]'"
        raise ToolMissing(str(source), "the package huggingface-hub is not installed.", hint)
    folder, answer = _fresh_ground(home)
    arguments = [source.repo, source.filename, source.revision, str(folder), str(answer), str(MARGIN)]
    status = run_watched(
        [str(_SCRIPT), *arguments],
        env={"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
        log=home.partial / "hub.log",
        watch=folder,
        total=lambda: entry.size or int(_read(answer).get("size") or 0),
        lock_fd=home.lock_fd,
        report=report,
    )
    told = _read(answer)
    if status != 0 or "path" not in told:
        raise classify_hub_failure(str(source), told, home.folder)
    whole = Path(told["path"])
    actual = file_sha256(whole, report)
    path = home.commit(whole, actual=actual, expected=entry.sha256 or told.get("sha256"))
    shutil.rmtree(folder)
    return path


def _fresh_ground(home: ModelHome) -> tuple[Path, Path]:
    folder, answer = home.partial / "hub", home.partial / "hub.json"
    folder.mkdir(exist_ok=True)
    answer.unlink(missing_ok=True)
    # Newer clients give each attempt a file of its own, which nobody takes up again.
    for left in folder.rglob("*.*.incomplete"):
        left.unlink()
    return folder, answer


def _read(answer: Path) -> dict[str, Any]:
    try:
        return json.loads(answer.read_text())
    except (OSError, ValueError):
        return {}


_NOT_THERE = {"RepositoryNotFoundError", "EntryNotFoundError", "RevisionNotFoundError"}
_HINTS = (
    ({"GatedRepoError"}, "Accept its terms on the hub, then log in with `hf auth login` or set HF_TOKEN."),
    (
        {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectionError", "ConnectError", "TransportError"},
        "The hub cannot be reached: check the network, HF_ENDPOINT and HF_HUB_OFFLINE.",
    ),
    (_NOT_THERE, "Check the repository and the file name; for a private one, set HF_TOKEN."),
)


def classify_hub_failure(what: str, told: dict[str, Any], folder: Path) -> CatalogError:
    """Turn the report of a failed download into an error that says what to do."""
    names = set(told.get("error", ()))
    if "NoSpace" in names:
        return NoSpace(folder, told.get("needed"), told.get("free"))
    if told.get("errno") in {errno.ENOSPC, errno.EDQUOT}:
        return NoSpace(folder)
    lines = str(told.get("message", "")).strip().splitlines()
    reason = f"the hub says: {lines[0].rstrip('.')}." if lines else "the download ended early."
    for classes, hint in _HINTS:
        if names & classes:
            return DownloadFailed(what, reason, hint)
    return DownloadFailed(what, reason)
