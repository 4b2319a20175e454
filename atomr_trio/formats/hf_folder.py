"""A model's folder in the layout of Hugging Face: JSON files beside weights in safetensors."""

import json
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attrs import define, field, frozen

from atomr_trio.core import ModelLoadError

from .safetensors import SafetensorsFile, SafetensorsTensor

__all__ = ["HfFolder", "HfWeights"]

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_CONFIG = "config.json"


@define(eq=False)
class HfWeights:
    """The open weights of a folder; a context manager. ``tensors``: of all files, by name."""

    tensors: dict[str, SafetensorsTensor] = field(repr=False)
    _files: ExitStack = field(repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.tensors.clear()
        self._files.close()


@frozen
class HfFolder:
    """The folder of one model. Reads a file when it is asked for it.

    Args:
        path: the folder.
    """

    path: Path = field(converter=Path)

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> Self | None:
        """Return the folder at this path, or the one that this ``config.json`` lies in; ``None``: there is none."""
        place = Path(path)
        folder = place.parent if place.name == _CONFIG else place
        return cls(folder) if (folder / _CONFIG).is_file() else None

    @property
    def config(self) -> dict[str, Any]:
        """The content of ``config.json``.

        Raises:
            ModelLoadError: it is missing, or is not a JSON object.
        """
        return self._object(_CONFIG)

    @property
    def generation(self) -> dict[str, Any]:
        """The content of ``generation_config.json``; empty if there is none.

        Raises:
            ModelLoadError: it is not a JSON object.
        """
        return self._object("generation_config.json", optional=True)

    @property
    def tokenizer_config(self) -> dict[str, Any]:
        """The content of ``tokenizer_config.json``; empty if there is none.

        Raises:
            ModelLoadError: it is not a JSON object.
        """
        return self._object("tokenizer_config.json", optional=True)

    @property
    def pooling(self) -> dict[str, Any]:
        """The content of ``1_Pooling/config.json``, which models have that are made for embeddings; empty if none.

        Raises:
            ModelLoadError: it is not a JSON object.
        """
        return self._object("1_Pooling/config.json", optional=True)

    @property
    def tokenizer(self) -> dict[str, Any]:
        """The content of ``tokenizer.json``.

        Raises:
            ModelLoadError: it is missing, or is not a JSON object.
        """
        return self._object("tokenizer.json")

    @property
    def has_tokenizer(self) -> bool:
        """There is a ``tokenizer.json``."""
        return (self.path / "tokenizer.json").is_file()

    @property
    def chat_template(self) -> str | None:
        """The template that lies beside the other files, or else in ``tokenizer_config.json``.

        Raises:
            ModelLoadError: a file cannot be read.
        """
        beside = self._read("chat_template.jinja", optional=True)
        if beside:
            return beside
        given = self.tokenizer_config.get("chat_template")
        if isinstance(given, list):
            # Named templates, for tools and for retrieval; one is for plain talk.
            named = [one for one in given if isinstance(one, dict) and one.get("name") == "default"]  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
            given = named[0].get("template") if named else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        return given if isinstance(given, str) else None

    def open_weights(self) -> HfWeights:
        """Map all files of weights.

        Raises:
            ModelLoadError: one is missing, truncated or corrupt, or a tensor is not where the index says.
        """
        with ExitStack() as files:
            where = self._index()
            names = sorted(set(where.values())) if where is not None else [_SINGLE]
            shards = {name: files.enter_context(SafetensorsFile.open(self.path / name)) for name in names}
            if where is None:
                return HfWeights(dict(shards[_SINGLE].tensors), files.pop_all())
            found: dict[str, SafetensorsTensor] = {}
            for tensor, name in where.items():
                if tensor not in shards[name].tensors:
                    raise ModelLoadError(f"tensor `{tensor}` is not in `{name}`, where the index says")
                found[tensor] = shards[name].tensors[tensor]
            return HfWeights(found, files.pop_all())

    def _index(self) -> dict[str, str] | None:
        if not (self.path / _INDEX).is_file():
            if not (self.path / _SINGLE).is_file():
                raise ModelLoadError("the folder has no weights in safetensors")
            return None
        where = self._object(_INDEX).get("weight_map")
        if not isinstance(where, dict) or not where:
            raise ModelLoadError(f"`{_INDEX}` has no `weight_map`")
        for name in where.values():  # pyright: ignore[reportUnknownVariableType]
            # A file of the folder, and nothing else on this machine.
            if not isinstance(name, str) or name != Path(name).name or not name.endswith(".safetensors"):
                raise ModelLoadError(f"`{_INDEX}` names a file that is not one of safetensors in the folder")
        return where  # pyright: ignore[reportUnknownVariableType]

    def _object(self, name: str, *, optional: bool = False) -> dict[str, Any]:
        text = self._read(name, optional=optional)
        if text is None:
            return {}
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise ModelLoadError(f"`{name}` is not JSON") from None
        if not isinstance(value, dict):
            raise ModelLoadError(f"`{name}` is not a JSON object")
        return value  # pyright: ignore[reportUnknownVariableType]

    def _read(self, name: str, *, optional: bool) -> str | None:
        try:
            return (self.path / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            if optional:
                return None
            raise ModelLoadError(f"the folder has no `{name}`") from None
        except OSError as error:
            raise ModelLoadError(f"`{name}` cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ModelLoadError(f"`{name}` is not UTF-8") from None
