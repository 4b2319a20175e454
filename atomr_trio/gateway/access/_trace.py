"""W3C trace context: which trace a request belongs to. Pure but for the random ids of a new trace."""

import re
import secrets

from attrs import frozen

from ._headers import Headers, values_of

__all__ = ["TraceContext", "trace_of"]

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_KEY = r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
_MEMBER = re.compile(rf"({_KEY})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{{0,255}}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
MAX_MEMBERS = 32
MAX_STATE = 8192


@frozen
class TraceContext:
    """The two headers, as they are passed on. ``state`` is empty where there is none."""

    parent: str
    state: str = ""


def trace_of(headers: Headers) -> TraceContext:
    """The trace that a client says it is in; a new one if it says none, or nonsense."""
    headers = list(headers)
    parents = values_of(headers, b"traceparent")
    if len(parents) != 1 or not _is_parent(text := parents[0].decode("latin-1")):
        return TraceContext(f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00")
    return TraceContext(text, _state(values_of(headers, b"tracestate")))


def _is_parent(text: str) -> bool:
    found = _PARENT.fullmatch(text)
    if found is None:
        return False
    version, trace, span, _flags, more = found.groups()
    # Later versions may add fields; the first one has none, and 255 is never a version.
    return (
        version != "ff"
        and not (version == "00" and more)
        and len(text) <= 512
        and bool(trace.strip("0") and span.strip("0"))
    )


def _state(values: list[bytes]) -> str:
    """The vendors' notes, joined; nothing if they break the rules anywhere, as the standard has it."""
    joined = b",".join(values).decode("latin-1")
    members = [member for member in map(str.strip, joined.split(",")) if member]
    found = [_MEMBER.fullmatch(member) for member in members]
    keys = {match.group(1) for match in found if match}
    fits = len(members) <= MAX_MEMBERS and len(joined) <= MAX_STATE
    return ",".join(members) if fits and len(keys) == len(members) else ""
