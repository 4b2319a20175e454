"""Request headers: the secret in them, and which routes need none. Pure."""

from collections.abc import Iterable

__all__ = ["PUBLIC_PATHS", "Headers", "is_public", "presented_secret", "values_of"]

Headers = Iterable[tuple[bytes, bytes]]

PUBLIC_PATHS = frozenset({"/livez", "/readyz", "/health", "/openapi.json"})
"""What is answered to everybody, and while the server stops: probes, and the description of the API."""

_BEARER = b"bearer "


def is_public(method: str, path: str, paths: frozenset[str] = PUBLIC_PATHS) -> bool:
    """Whether a request needs no key: reads of what is in the table, and questions about what may be asked."""
    return method == "OPTIONS" or (method in {"GET", "HEAD"} and path in paths)


def values_of(headers: Headers, name: bytes) -> list[bytes]:
    """All values of a header, in order. ``name`` is in lower case."""
    return [value.strip() for given, value in headers if given.lower() == name]


def presented_secret(headers: Headers) -> bytes | None:
    """The secret that a client shows: as bearer token, else as ``x-api-key``."""
    headers = list(headers)
    for value in values_of(headers, b"authorization"):
        if value[: len(_BEARER)].lower() == _BEARER and (secret := value[len(_BEARER) :].strip()):
            return secret
    return next((value for value in values_of(headers, b"x-api-key") if value), None)
