"""The fields that say what an answer must look like, and how they become a grammar."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from atomr_trio.core import BadRequest, Grammar

__all__ = ["ResponseFormat", "Structure", "StructuredOutputs", "json_structure", "structure_of"]

_ANY_OBJECT = {"type": "object"}


class TextFormat(Struct, tag_field="type", tag="text"):
    """Any text."""


class JsonObjectFormat(Struct, tag_field="type", tag="json_object"):
    """Some JSON object."""


class JsonSchema(Struct):
    """A schema and its name. What the schema says is always kept to, whatever ``strict`` says."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class JsonSchemaFormat(Struct, tag_field="type", tag="json_schema"):
    """JSON that a schema describes."""

    json_schema: JsonSchema


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat


class StructuredOutputs(Struct, forbid_unknown_fields=True):
    """One of several kinds of rules.

    Args:
        json: a JSON schema, as an object or as its text.
        regex: a regular expression for the whole answer.
        choice: the answers that are allowed.
        grammar: a grammar, in Lark's words or in GBNF.
    """

    json: dict[str, Any] | str | None = None
    regex: str | None = None
    choice: Annotated[list[str], Meta(min_length=1)] | None = None
    grammar: str | None = None


Structure = tuple[Grammar, str]
"""A grammar, and the field of the request that it comes from."""


def structure_of(format: ResponseFormat | None, outputs: StructuredOutputs | None) -> Structure | None:
    """Return the grammar that a request asks for; ``None``: any text will do.

    Raises:
        BadRequest: it asks for none, or for several at once.
    """
    found = [*_of_format(format), *_of_outputs(outputs)]
    if outputs is not None and len(_of_outputs(outputs)) != 1:
        message = "`structured_outputs` must have exactly one of `json`, `regex`, `choice` and `grammar`"
        raise BadRequest(message, param="structured_outputs")
    if len(found) > 1:
        message = "`structured_outputs` and `response_format` cannot both say what the answer must look like"
        raise BadRequest(message, param="structured_outputs")
    return found[0] if found else None


def json_structure(schema: dict[str, Any] | None, param: str) -> Structure:
    """The grammar of what a schema describes, from this field; ``None``: of any object."""
    return Grammar("json", _text(_ANY_OBJECT if schema is None else schema)), param


def _of_format(format: ResponseFormat | None) -> Sequence[Structure]:
    match format:
        case JsonObjectFormat():
            return [json_structure(None, "response_format")]
        case JsonSchemaFormat(JsonSchema(schema=schema)):
            return [json_structure(schema, "response_format.json_schema.schema")]
        case _:
            return []


def _of_outputs(outputs: StructuredOutputs | None) -> Sequence[Structure]:
    if outputs is None:
        return []
    schema = outputs.json if isinstance(outputs.json, str | None) else _text(outputs.json)
    found = [
        None if schema is None else (Grammar("json", schema), "structured_outputs.json"),
        None if outputs.regex is None else (Grammar("regex", outputs.regex), "structured_outputs.regex"),
        None if outputs.choice is None else (Grammar("choice", _text(outputs.choice)), "structured_outputs.choice"),
        None if outputs.grammar is None else (Grammar("lark", outputs.grammar), "structured_outputs.grammar"),
    ]
    return [one for one in found if one is not None]


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
