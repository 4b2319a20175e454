"""For the API reference: the signatures that attrs gives its classes, which reading the source alone does not show."""

import enum
import importlib
import inspect
import re
from typing import Any

import attrs
import griffe

__all__ = ["AttrsSignatures"]

ROOMS = ("atomr_trio.actor", "atomr_trio.testing")


class AttrsSignatures(griffe.Extension):
    """Adds to each attrs class the ``__init__`` that attrs has made."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Add it, unless the class has one in its source."""
        # The whole package is read, but only these rooms are documented: no other is worth importing.
        if not cls.module.canonical_path.startswith(ROOMS):
            return
        owner = getattr(importlib.import_module(cls.module.canonical_path), cls.name, None)
        if "__init__" in cls.members or not inspect.isclass(owner) or not attrs.has(owner):
            return
        parameters = griffe.Parameters(griffe.Parameter("self", kind=griffe.ParameterKind.positional_only))
        for made in attrs.fields(owner):
            if made.init:
                parameters.add(_parameter(made, cls.members.get(made.name)))
        cls.set_member("__init__", griffe.Function("__init__", parameters=parameters, returns="None"))


def _parameter(made: "attrs.Attribute[Any]", in_source: griffe.Object | griffe.Alias | None) -> griffe.Parameter:
    kinds = griffe.ParameterKind
    own = in_source.annotation if isinstance(in_source, griffe.Attribute) else None
    return griffe.Parameter(
        made.alias or made.name,
        annotation=_without_modules(made.type) if own is None else own,
        kind=kinds.keyword_only if made.kw_only else kinds.positional_or_keyword,
        default=_default(made.default),
    )


def _without_modules(annotation: Any) -> str:
    said = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"~|\w+\.(?=\w)", "", said)


def _default(default: Any) -> str | None:
    if default is attrs.NOTHING:
        return None
    if isinstance(default, attrs.Factory):
        return "..."
    if isinstance(default, enum.Enum):
        return f"{type(default).__name__}.{default.name}"
    return getattr(default, "__name__", None) or repr(default)
