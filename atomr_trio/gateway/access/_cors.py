"""Cross-origin requests of browsers: what they are told. Pure."""

import re
from collections.abc import Iterable

from attrs import field, frozen

from ._headers import Headers, values_of

__all__ = ["Cors"]

_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.\-]*://(?:\[[0-9a-f:.]+\]|[a-z0-9._\-]+)(?::[0-9]{1,5})?")
_HEADER_LIST = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, \t\-]{1,4096}")
METHODS = b"GET, POST, DELETE, OPTIONS"
EXPOSED = (
    b"x-request-id, x-stream-id, retry-after, retry-after-ms, x-should-retry, x-ratelimit-limit-requests, "
    b"x-ratelimit-remaining-requests, x-ratelimit-reset-requests, x-ratelimit-limit-tokens, "
    b"x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens"
)
MAX_AGE = b"600"

Lines = list[tuple[bytes, bytes]]


def _to_origins(given: Iterable[str]) -> frozenset[str]:
    return frozenset(origin.lower() for origin in given)


@frozen
class Cors:
    """The pages that may use the API from a browser. Without origins, nothing is said, and browsers keep them out.

    Args:
        origins: such as ``https://chat.example.org``; ``*`` is every page.
        credentials: pages may send cookies and the like along. Not with ``*``.

    Raises:
        ValueError: an origin is none, or credentials are allowed to every page.
    """

    origins: frozenset[str] = field(default=frozenset[str](), converter=_to_origins)
    credentials: bool = False

    def __attrs_post_init__(self) -> None:
        for origin in self.origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"`{origin}` is no origin; one looks like https://chat.example.org, without a path")
        if self.credentials and "*" in self.origins:
            raise ValueError("credentials cannot be allowed to every page: name the origins")

    def preflight(self, method: str, headers: Headers) -> Lines | None:
        """What the answer says besides, if a request asks whether another may be sent, and it may; else ``None``."""
        headers = list(headers)
        asks = method == "OPTIONS" and bool(values_of(headers, b"access-control-request-method"))
        if not asks or not self._allows(headers):
            return None
        lines = [(b"access-control-allow-methods", METHODS), (b"access-control-max-age", MAX_AGE)]
        wanted = b", ".join(values_of(headers, b"access-control-request-headers"))
        # All may be sent: what a header means is decided where it is read.
        if _HEADER_LIST.fullmatch(wanted):
            lines.append((b"access-control-allow-headers", wanted))
        return lines

    def headers(self, headers: Headers) -> Lines:
        """What is added to the answer of any request."""
        headers = list(headers)
        if not self.origins:
            return []
        # Also where there is no origin, or a wrong one: caches must not give that answer to the right one.
        lines = [] if "*" in self.origins else [(b"vary", b"Origin")]
        if not self._allows(headers):
            return lines
        origin = b"*" if "*" in self.origins else values_of(headers, b"origin")[0]
        lines.append((b"access-control-allow-origin", origin))
        if self.credentials:
            lines.append((b"access-control-allow-credentials", b"true"))
        return [*lines, (b"access-control-expose-headers", EXPOSED)]

    def _allows(self, headers: Headers) -> bool:
        origins = values_of(headers, b"origin")
        if len(origins) != 1:
            return False
        return "*" in self.origins or origins[0].decode("latin-1").lower() in self.origins
