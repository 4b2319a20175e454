"""From a request's bytes to a validated object, or to a clear 400 that names the field."""

from typing import TypeVar

import msgspec

from atomr_trio.core import BadRequest

__all__ = ["decode_body"]

T = TypeVar("T")

_MISSING = "Object missing required field `"
_LONGEST = 300


def decode_body(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    """Decode and validate in one step.

    Raises:
        BadRequest: the body is not JSON, or a field is missing, of the wrong type or out of range.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _explain(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # A UnicodeDecodeError quotes nothing of the body in its text but the position.
        raise BadRequest(f"the request's body is not valid JSON: {_shorten(str(error))}") from None
    except RecursionError:
        raise BadRequest("the request's body is nested too deeply") from None


def _explain(text: str) -> BadRequest:
    what, _, path = text.rpartition(" - at ")
    what = what or text
    param = _param(path) if path and what is not text else ""
    if what.startswith(_MISSING):
        name = what.removeprefix(_MISSING).rstrip("`")
        param = f"{param}.{name}" if param else name
        return BadRequest(f"`{param}` is required", param=param)
    what = _shorten(what[:1].lower() + what[1:])
    if not param:
        return BadRequest(f"the request's body: {what}")
    return BadRequest(f"`{param}`: {what}", param=param)


def _param(path: str) -> str:
    # `$.messages[0].role`, `$.metadata[...]`, or "`key` in `$.metadata`" when the key itself is wrong.
    return path.removeprefix("`key` in ").strip("`").removeprefix("$").removeprefix(".").replace("[...]", "")


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
