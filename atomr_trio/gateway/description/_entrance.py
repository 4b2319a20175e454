"""What a request passes before its route, as it is described."""

from collections.abc import Callable
from typing import Any

from attrs import frozen

from atomr_trio.core import Backpressure
from atomr_trio.gateway.access import InvalidApiKey, QuotaExhausted, QuotaHeld, RequestsLimited

from ._route import Route

__all__ = ["SCHEMES", "Entrance"]

SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key of this server."},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same, as Anthropic's."},
}


def _always(_method: str, _path: str) -> bool:
    return True


@frozen
class Entrance:
    """Who may come in.

    Args:
        is_public: whether a method of a path needs no key, and is answered while the server stops; all unless given.
        has_keys: there are keys, and all other routes need one.
    """

    _is_public: Callable[[str, str], bool] = _always
    has_keys: bool = False

    def security(self, route: Route) -> list[dict[str, list[Any]]]:
        """The keys of which a route needs one; empty: none."""
        return [{name: []} for name in SCHEMES] if self._needs_key(route) else []

    def errors(self, route: Route) -> tuple[type[Exception], ...]:
        """What a request may end with before it reaches its route."""
        if self._is_public(route.method, route.path):
            return ()
        limits = (RequestsLimited, QuotaExhausted, QuotaHeld) if route.method == "POST" else ()
        return (Backpressure, *((InvalidApiKey, *limits) if self.has_keys else ()))

    def _needs_key(self, route: Route) -> bool:
        return self.has_keys and not self._is_public(route.method, route.path)
