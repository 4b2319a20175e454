"""What an operator can set at the HTTP edge, with the defaults that were measured to be right."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

from attrs import Attribute, field, frozen, validators

from .access import PUBLIC_PATHS, Cors, Network, to_network

__all__ = ["GatewaySettings", "ServerSettings"]


def _to_networks(given: Iterable[Network | str]) -> tuple[Network, ...]:
    return tuple(to_network(str(network)) for network in given)


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
        lame_duck: after a shutdown began, how long connections are accepted at least, though no longer than ``grace``.
            Until then, and as long as requests are in flight, new ones get 503, and so do those who ask for readiness.
        max_connections: how many there are at once.
        when_full: ``refuse`` answers further ones with 503, ``wait`` leaves them in the kernel's queue.
    """

    write_timeout: float = field(default=30.0, validator=_positive)
    keep_alive_timeout: float = field(default=15.0, validator=_positive)
    grace: float = field(default=30.0, validator=validators.ge(0))
    linger: float = field(default=2.0, validator=_positive)
    max_header_bytes: int = field(default=16 * 1024, validator=_positive)
    max_requests_per_connection: int = field(default=10_000, validator=_positive)
    startup_timeout: float = field(default=600.0, validator=_positive)
    shutdown_timeout: float = field(default=10.0, validator=_positive)
    lame_duck: float = field(default=0.0, validator=validators.ge(0))
    max_connections: int = field(default=1000, validator=_positive)
    when_full: Literal["refuse", "wait"] = field(default="refuse", validator=validators.in_(["refuse", "wait"]))


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
        max_embeddings: texts of one HTTP request for embeddings.
        max_parallel_choices: how many choices, or embeddings, of one HTTP request are submitted at once.
        resume_window: how long a stream goes on without its client, who may come back for the rest
            (``GET /v1/streams/{id}``); 0: a client that leaves cancels its answer at once.
        resume_bytes: of each such stream, so many bytes of events are kept for a client who lacks them.
        max_resumable: how many such streams there are at once; further ones end with their connection.
        access_log: write one line per request.
        public_paths: what is answered without a key, and while the server stops.
        trusted_proxies: addresses and networks whose word is taken for who the client is.
        cors: which pages may use the API from a browser.
        assumed_output_tokens: for a key with limits, an answer that neither its request nor its model bounds gets this
            many tokens at most.
    """

    max_body_bytes: int = field(default=16 * 1024 * 1024, validator=_positive)
    body_timeout: float = field(default=30.0, validator=_positive)
    drain_timeout: float = field(default=5.0, validator=_positive)
    heartbeat: float = field(default=10.0, validator=_positive)
    max_choices: int = field(default=1024, validator=_positive)
    max_embeddings: int = field(default=2048, validator=_positive)
    max_parallel_choices: int = field(default=128, validator=_positive)
    resume_window: float = field(default=0.0, validator=validators.ge(0))
    resume_bytes: int = field(default=1024 * 1024, validator=_positive)
    max_resumable: int = field(default=1024, validator=_positive)
    access_log: bool = True
    public_paths: frozenset[str] = PUBLIC_PATHS
    trusted_proxies: tuple[Network, ...] = field(default=(), converter=_to_networks)
    cors: Cors = field(factory=Cors)
    assumed_output_tokens: int = field(default=4096, validator=_positive)
