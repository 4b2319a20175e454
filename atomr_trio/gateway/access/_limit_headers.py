"""What a client is told about its limits with each answer. Pure."""

import math

from ._account import Account
from ._headers import Headers
from ._window import SlidingWindow

__all__ = ["duration", "limit_headers"]


def limit_headers(account: Account, clock: float) -> Headers:
    """The headers for the limits that this key has.

    Args:
        account: of the key.
        clock: seconds, of the clock that its windows go by.
    """
    return [*_lines("requests", account.requests, clock), *_lines("tokens", account.tokens, clock)]


def _lines(what: str, window: SlidingWindow, clock: float) -> Headers:
    if window.limit is None:
        return []
    values = {
        "limit": str(window.limit),
        "remaining": str(window.left(clock)),
        "reset": duration(window.full_again_after(clock)),
    }
    return [(f"x-ratelimit-{key}-{what}".encode(), value.encode()) for key, value in values.items()]


def duration(seconds: float) -> str:
    """Seconds, rounded up, as the API writes them: ``0s``, ``59s``, ``1m1s``."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
