"""What the text of a response shall look like: asked for, and told in the answer."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from ._structure import Structure, json_structure

__all__ = ["FreeText", "TextConfig", "TextForm", "text_structure"]


class FreeText(Struct, tag_field="type", tag="text"):
    """Any text."""


class ObjectText(Struct, tag_field="type", tag="json_object"):
    """Some JSON object."""


class SchemaText(Struct, tag_field="type", tag="json_schema"):
    """JSON that a schema describes. It is always kept to, whatever ``strict`` says."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    schema: dict[str, Any]
    strict: bool | None = None
    description: str | None = None


TextForm = FreeText | ObjectText | SchemaText


class TextConfig(Struct):
    """How the text shall look."""

    format: TextForm | None = None
    verbosity: str | None = None


def text_structure(config: TextConfig | None) -> Structure | None:
    """The grammar that a request asks for; ``None``: any text will do."""
    match None if config is None else config.format:
        case ObjectText():
            return json_structure(None, "text.format")
        case SchemaText(schema=schema):
            return json_structure(schema, "text.format.schema")
        case _:
            return None
