"""What a request's grammar comes to: one rule in Lark's words, within bounds. Pure."""

import json
from collections.abc import Mapping
from typing import Any, cast

from attrs import frozen

from atomr_trio.core import BadRequest, Grammar

__all__ = ["MAX_BYTES", "MAX_CHOICES", "Rule", "refusal", "rule_of"]

MAX_BYTES = 128 * 1024
"""How long a grammar's text may be: what bounds the time to read it, with the limits of the reader."""

MAX_CHOICES = 1000
"""How many choices there may be; the reader itself takes 2,000."""

_WHITE_SPACE = r"\n[ \t]{0,40}|[ \t]{1,40}"
"""Between two parts of a JSON text: a line break, an indentation. Without a bound a weak model goes on with it for
ever; and never twice in a row, because what is skipped cannot be followed by what is skipped."""


@frozen
class Rule:
    """A grammar that can be read.

    Args:
        text: in Lark's words, or what has to be translated into them.
        kind: ``lark`` is read as it stands, ``any`` may be GBNF, ``regex`` is a regular expression.
    """

    text: str
    kind: str = "lark"


def rule_of(grammar: Grammar) -> Rule:
    """Translate a request's grammar; what is wrong inside of a schema or an expression is found by the reader.

    Raises:
        BadRequest: it is too long, or not what its kind says; ``param`` is ``grammar``.
    """
    if len(_utf8(grammar.text)) > MAX_BYTES:
        raise refusal(f"it is longer than {MAX_BYTES} bytes")
    match grammar.kind:
        case "json":
            return Rule(f"start: %json {_schema(grammar.text)}")
        case "choice":
            return Rule(f"start: {' | '.join(map(_quoted, _choices(grammar.text)))}")
        case "regex":
            return Rule(grammar.text, "regex")
        case "lark":
            return Rule(grammar.text, "any")


def refusal(why: str) -> BadRequest:
    """Return the error of a grammar that cannot be kept to."""
    return BadRequest(f"the grammar of the answer: {why}", param="grammar")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise refusal("it is not valid Unicode: it holds half of a surrogate pair") from None


def _schema(text: str) -> str:
    schema = _json(text)
    if not isinstance(schema, Mapping):
        raise refusal("a JSON schema must be an object")
    asked = cast("Mapping[str, Any]", schema)
    own = asked.get("x-guidance", {})
    if not isinstance(own, Mapping):
        raise refusal("`x-guidance` must be an object")
    return json.dumps({**asked, "x-guidance": {"whitespace_pattern": _WHITE_SPACE, **cast("Mapping[str, Any]", own)}})


def _choices(text: str) -> list[str]:
    found = _json(text)
    if not isinstance(found, list) or not found:
        raise refusal("the choices must be a list of texts, one at least")
    choices = cast("list[Any]", found)
    if len(choices) > MAX_CHOICES:
        raise refusal(f"there may be at most {MAX_CHOICES} choices")
    if not all(isinstance(choice, str) and choice for choice in choices):
        raise refusal("each choice must be a text that is not empty")
    return choices


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise refusal("it is not valid JSON") from None


def _quoted(text: str) -> str:
    _utf8(text)
    return json.dumps(text)
