"""Who is at the other end, when there are proxies in between. Pure."""

import ipaddress
from collections.abc import Sequence

from attrs import frozen

from ._headers import Headers, values_of

__all__ = ["Network", "Peer", "peer_of", "to_network"]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@frozen
class Peer:
    """The client's address, and the scheme that it has used; empty where they are not known."""

    address: str
    scheme: str


def to_network(text: str) -> Network:
    """A proxy's address, or a network of them, such as ``10.0.0.0/8``.

    Raises:
        ValueError: it is neither.
    """
    return ipaddress.ip_network(text.strip(), strict=False)


def peer_of(connected: str, scheme: str, headers: Headers, trusted: Sequence[Network]) -> Peer:
    """Who has sent a request.

    Proxies append the address that they were asked from. Only what a trusted one has appended counts: the list is read
    from its end, and the first address that is not a trusted proxy's is the client's. What stands before it may be the
    client's invention.

    Args:
        connected: the address at the other end of the connection.
        scheme: of the connection.
        headers: of the request.
        trusted: the proxies that are believed.
    """
    nearest = _address(connected)
    if nearest is None or not _is_trusted(nearest, trusted):
        return Peer(connected, scheme)
    headers = list(headers)
    return Peer(str(_client(nearest, headers, trusted)), _scheme(headers) or scheme)


def _client(nearest: Address, headers: Headers, trusted: Sequence[Network]) -> Address:
    joined = b",".join(values_of(headers, b"x-forwarded-for")).decode("latin-1")
    for text in reversed(joined.split(",")):
        address = _address(text)
        if address is None:
            break
        nearest = address
        if not _is_trusted(address, trusted):
            break
    return nearest


def _scheme(headers: Headers) -> str | None:
    # The last one was said by the proxy that we trust.
    last = b",".join(values_of(headers, b"x-forwarded-proto")).rpartition(b",")[2].strip().lower()
    return last.decode("ascii") if last in {b"http", b"https"} else None


def _address(text: str) -> Address | None:
    """An address, also with a port, or in the brackets of IPv6; ``None`` for anything else."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A socket that serves both families shows IPv4 peers in this form.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _is_trusted(address: Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)
