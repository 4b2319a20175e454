"""Which routee gets a message: the strategies, without any sending."""

import bisect
import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from attrs import define, field, validators

from ._ref import ActorRef

HashKey = str | bytes | int
"""What ``HashRing`` and ``ConsistentHash`` find the node of."""

__all__ = ["ConsistentHash", "HashKey", "HashRing", "LeastLoaded", "RoundRobin", "RoutingStrategy"]


class RoutingStrategy(Protocol):
    """Picks the routee of a message. It may keep state, so each router has its own."""

    def pick(self, message: Any, routees: tuple[ActorRef[Any], ...]) -> ActorRef[Any]:
        """Return one of the routees; there is at least one, and all were alive a moment ago."""
        ...


@define
class RoundRobin:
    """Every routee in turn."""

    _turn: int = field(default=0, init=False)

    def pick(self, message: Any, routees: tuple[ActorRef[Any], ...]) -> ActorRef[Any]:
        """Return the next in turn."""
        picked = routees[self._turn % len(routees)]
        self._turn = (self._turn + 1) % len(routees)
        return picked


@define
class LeastLoaded:
    """The routee with the fewest queued messages; those with equally few in turn."""

    _turn: int = field(default=0, init=False)

    def pick(self, message: Any, routees: tuple[ActorRef[Any], ...]) -> ActorRef[Any]:
        """Return the least loaded, looked for from where the last search ended."""
        count = len(routees)
        best = min(range(count), key=lambda i: (routees[i].queued, (i - self._turn) % count))
        self._turn = (best + 1) % count
        return routees[best]


class HashRing:
    """Consistent hashing of keys to named nodes: equal in every process, and no key moves without need.

    A node that is added takes keys only over to itself; the keys of a node that is removed spread over the others.

    Args:
        nodes: their names; the order does not matter.
        virtual_nodes: points of each node on the ring. More spread the keys more evenly, and cost memory.

    Examples:
        >>> ring, larger = HashRing(["a", "b"]), HashRing(["a", "b", "c"])
        >>> {larger.owner(key) for key in range(1000) if larger.owner(key) != ring.owner(key)}
        {'c'}
    """

    __slots__ = ("_owners", "_points")

    def __init__(self, nodes: Iterable[str], *, virtual_nodes: int = 128) -> None:
        points = sorted((_hash(f"{node}\0{i}"), node) for node in nodes for i in range(virtual_nodes))
        self._points = [point for point, _ in points]
        self._owners = [node for _, node in points]

    def owner(self, key: HashKey) -> str:
        """Return the node of a key.

        Raises:
            LookupError: the ring has no nodes.
        """
        if not self._points:
            raise LookupError("the ring has no nodes")
        return self._owners[bisect.bisect_right(self._points, _hash(key)) % len(self._points)]


def _hash(key: HashKey) -> int:
    # The interpreter's own hash differs from process to process.
    data = key if isinstance(key, bytes) else str(key).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest())


@define
class ConsistentHash:
    """Messages with one key go to one routee, as long as it lives.

    Args:
        key: the message's key; an int and its decimal string are one key.
        virtual_nodes: see ``HashRing``. A routee's name on the ring is its path.
    """

    key: Callable[[Any], HashKey]
    virtual_nodes: int = field(default=128, validator=validators.ge(1))
    _routees: tuple[ActorRef[Any], ...] = field(default=(), init=False)
    _by_path: dict[str, ActorRef[Any]] = field(factory=dict[str, ActorRef[Any]], init=False)
    _ring: HashRing = field(factory=lambda: HashRing(()), init=False)

    def pick(self, message: Any, routees: tuple[ActorRef[Any], ...]) -> ActorRef[Any]:
        """Return the routee that owns the message's key."""
        if self._routees is not routees:
            self._routees = routees
            self._by_path = {routee.path: routee for routee in routees}
            self._ring = HashRing(self._by_path, virtual_nodes=self.virtual_nodes)
        return self._by_path[self._ring.owner(self.key(message))]
