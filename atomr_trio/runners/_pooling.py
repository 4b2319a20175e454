"""How a model wants its embeddings to be made, if it says so."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atomr_trio.core import ModelLoadError
from atomr_trio.engine.settings import Pooling
from atomr_trio.formats import GgufFile, HfFolder

__all__ = ["model_pooling"]

_PREFIX = "pooling_mode_"
_OF_FOLDERS: Mapping[str, Pooling] = {"lasttoken": "last", "mean_tokens": "mean"}
# 0 is none at all: such a file was not made for embeddings.
_OF_FILES: Mapping[Any, Pooling | None] = {None: None, 0: None, 1: "mean", 3: "last"}


def model_pooling(path: Path) -> Pooling | None:
    """Return what the model's own files say; ``None``: nothing.

    Raises:
        ModelLoadError: they say what cannot be done, or cannot be read.
    """
    folder = HfFolder.at(path)
    if folder is not None:
        return _of_folder(folder.pooling)
    with GgufFile.open(path) as file:
        return _of_file(file.fields)


def _of_folder(said: Mapping[str, Any]) -> Pooling | None:
    modes = [name.removeprefix(_PREFIX) for name, on in said.items() if name.startswith(_PREFIX) and on is True]
    if not modes:
        return None
    if len(modes) > 1 or modes[0] not in _OF_FOLDERS:
        raise _unknown("+".join(sorted(modes)))
    return _OF_FOLDERS[modes[0]]


def _of_file(fields: Mapping[str, Any]) -> Pooling | None:
    said = fields.get(f"{fields.get('general.architecture')}.pooling_type")
    if not isinstance(said, int | None) or said not in _OF_FILES:
        raise _unknown(str(said))
    return _OF_FILES[said]


def _unknown(said: str) -> ModelLoadError:
    return ModelLoadError(f"its embeddings are pooled by `{said[:80]}`: not supported; choose `pooling` yourself")
