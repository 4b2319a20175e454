"""What an operator can set at the HTTP edge, with the defaults that were measured to be right."""

from collections.abc import Callable
from typing import Any

from attrs import Attribute, field, frozen, validators

__all__ = ["GatewaySettings", "ServerSettings"]

_positive: Callable[[Any, "Attribute[Any]", Any], None] = validators.gt(0)


@frozen(kw_only=True)
class ServerSettings:
    """Limits of the connection driver. Times are seconds, sizes are bytes.

    Args:
        write_timeout: a peer that takes nothing off the wire for this long is cut.
        keep_alive_timeout: how long a connection may be idle, and how long request headers may take to arrive.
        grace: after a shutdown began, how long requests in flight may go on.
        linger: after our last byte, how long we go on reading (and dropping) what the peer still sends, so that
            a reset does not take our answer away from it.
        max_header_bytes: the request line and headers together.
        max_requests_per_connection: the connection is closed after this many.
        startup_timeout: how long the application's start-up hooks may take.
        shutdown_timeout: how long its shutdown hooks may take.
    """

    write_timeout: float = field(default=30.0, validator=_positive)
    keep_alive_timeout: float = field(default=15.0, validator=_positive)
    grace: float = field(default=30.0, validator=validators.ge(0))
    linger: float = field(default=2.0, validator=_positive)
    max_header_bytes: int = field(default=16 * 1024, validator=_positive)
    max_requests_per_connection: int = field(default=10_000, validator=_positive)
    startup_timeout: float = field(default=600.0, validator=_positive)
    shutdown_timeout: float = field(default=10.0, validator=_positive)


@frozen(kw_only=True)
class GatewaySettings:
    """Limits and habits of the HTTP application. Times are seconds, sizes are bytes.

    Args:
        max_body_bytes: larger request bodies get 413.
        body_timeout: how long a request body may take to arrive, then 408.
        drain_timeout: how long an early answer waits for the rest of the request body before it gives up and
            closes the connection instead.
        heartbeat: an idle stream gets a comment line this often. A stream whose first token takes longer is
            accepted (status 200) at the first heartbeat; before that, an error still is a real 4xx or 5xx.
        max_choices: prompts times ``n`` of one HTTP request.
        max_parallel_choices: how many of them are submitted at once.
        access_log: write one line per request.
    """

    max_body_bytes: int = field(default=16 * 1024 * 1024, validator=_positive)
    body_timeout: float = field(default=30.0, validator=_positive)
    drain_timeout: float = field(default=5.0, validator=_positive)
    heartbeat: float = field(default=10.0, validator=_positive)
    max_choices: int = field(default=1024, validator=_positive)
    max_parallel_choices: int = field(default=128, validator=_positive)
    access_log: bool = True
