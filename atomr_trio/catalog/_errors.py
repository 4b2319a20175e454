"""What can go wrong between a model's name and its file.

These are an operator's errors: they are printed on the terminal and may name paths. The gateway never shows them.
"""

from pathlib import Path
from typing import ClassVar

from attrs import define

from atomr_trio.core import InferenceError

__all__ = [
    "CacheUnusable",
    "CatalogError",
    "DownloadFailed",
    "HashMismatch",
    "ModelFileMissing",
    "ModelUnknown",
    "NoSpace",
    "ToolMissing",
]


@define
class CatalogError(InferenceError):
    """Base of every reason why a model's file cannot be had."""

    kind: ClassVar[str] = "catalog_error"


@define
class ModelUnknown(CatalogError):
    """No catalogue entry has this name. ``near`` holds the known names that look like it."""

    kind: ClassVar[str] = "model_unknown"
    name: str
    known: tuple[str, ...]
    near: tuple[str, ...] = ()

    def __str__(self) -> str:
        guess = f"; did you mean {' or '.join(self.near)}?" if self.near else ""
        known = ", ".join(self.known) or "none"
        return (
            f"unknown model `{self.name}`{guess} Known models: {known}. "
            "A path to a .gguf file or hf:org/repo/file.gguf works too."
        )


@define
class ModelFileMissing(CatalogError):
    """A path was given, and there is no model file there."""

    kind: ClassVar[str] = "model_file_missing"
    path: Path
    reason: str = "there is no such file"

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}. Give the path of a .gguf file, or the name of a model."


@define
class DownloadFailed(CatalogError):
    """A source could not deliver. ``hint`` says what to do about it."""

    kind: ClassVar[str] = "download_failed"
    what: str
    reason: str
    hint: str = "Check the network and try again."

    def __str__(self) -> str:
        return f"cannot fetch {self.what}: {self.reason} {self.hint}".rstrip()


@define
class ToolMissing(DownloadFailed):
    """What fetches from this source is not installed."""

    kind: ClassVar[str] = "tool_missing"


@define
class HashMismatch(CatalogError):
    """The bytes are not the expected ones: damaged on the way, or not the file the catalogue means."""

    kind: ClassVar[str] = "hash_mismatch"
    what: str
    expected: str
    actual: str

    def __str__(self) -> str:
        return (
            f"{self.what} has sha256 {self.actual}, expected {self.expected}. "
            "It was thrown away; try again, and if it happens twice, do not trust the source."
        )


@define
class NoSpace(CatalogError):
    """The disk is full, or would be. Sizes are in bytes, ``None`` when only the system knows them."""

    kind: ClassVar[str] = "no_space"
    folder: Path
    needed: int | None = None
    free: int | None = None

    def __str__(self) -> str:
        sizes = ""
        if self.needed is not None and self.free is not None:
            sizes = f": {self.needed / 1e6:.0f} MB needed, {self.free / 1e6:.0f} MB free"
        return f"no disk space in {self.folder}{sizes}. Free some, or point XDG_CACHE_HOME at another disk."


@define
class CacheUnusable(CatalogError):
    """The cache folder cannot be created, read or written."""

    kind: ClassVar[str] = "cache_unusable"
    folder: Path
    reason: str

    def __str__(self) -> str:
        return (
            f"the model cache {self.folder} cannot be used: {self.reason}. "
            "Repair its permissions, or set XDG_CACHE_HOME to a folder you can write."
        )
