"""Typed access to the fields of a foreign file's configuration. Everything that is missing or absurd is named."""

import math
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from atomr_trio.core import ModelLoadError

__all__ = ["Fields", "shown"]


def shown(value: Any) -> str:
    """Return a value for a message: a field of a foreign file may be a list of a million entries."""
    return "a list" if isinstance(value, list) else repr(value)[:40]


@frozen
class Fields:
    """Fields under a common prefix. A field that is ``None`` counts as missing.

    Args:
        values: the file's fields.
        prefix: before each name.
    """

    values: Mapping[str, Any]
    prefix: str = ""

    def key(self, name: str) -> str:
        """Return the field's whole name."""
        return self.prefix + name

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value, or the default if it is missing."""
        value = self.values.get(self.key(name))
        return default if value is None else value

    def required(self, name: str, default: Any = None) -> Any:
        """Return the value, or the default.

        Raises:
            ModelLoadError: neither is there.
        """
        value = self.get(name, default)
        if value is None:
            raise ModelLoadError(f"field `{self.key(name)}` is missing")
        return value

    def size(self, name: str, default: int | None = None) -> int:
        """Return a positive whole number.

        Raises:
            ModelLoadError: it is missing, or something else.
        """
        value = self.required(name, default)
        if type(value) is not int or value <= 0:
            raise ModelLoadError(f"field `{self.key(name)}` is {shown(value)}, not a positive whole number")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """Return a positive number.

        Raises:
            ModelLoadError: it is missing, or something else.
        """
        value = self.required(name, default)
        # Compared before it is made a float: a whole number of any length may stand in a foreign file.
        if type(value) not in (int, float) or not 0 < value < 1e300 or not math.isfinite(value):
            raise ModelLoadError(f"field `{self.key(name)}` is {shown(value)}, not a positive number")
        return float(value)

    def optional_number(self, name: str) -> float | None:
        """Return a positive number, or ``None`` if it is missing.

        Raises:
            ModelLoadError: it is something else.
        """
        return None if self.get(name) is None else self.number(name)

    def flag(self, name: str, *, default: bool) -> bool:
        """Return a boolean.

        Raises:
            ModelLoadError: it is something else.
        """
        value = self.get(name, default)
        if not isinstance(value, bool):
            raise ModelLoadError(f"field `{self.key(name)}` is {shown(value)}, neither true nor false")
        return value
