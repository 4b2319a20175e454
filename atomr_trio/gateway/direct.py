"""The short way from an event stream to its socket: past all layers that would only frame what they are given."""

from typing import Any, Protocol, cast

from attrs import frozen
from hypercorn.typing import AppWrapper, Scope

from .rounds import Rounds

__all__ = ["ChunkWriter", "Connection", "Introduced", "body_follows", "chunk_writer"]

_KEY = "atomr_trio.connection"


class Connection(Protocol):
    """One that serves one response at a time."""

    @property
    def rounds(self) -> Rounds | None:
        """In which its streams are written."""
        ...

    def write_now(self, data: bytes, /) -> int:
        """Write without waiting; return how many bytes are settled."""
        ...

    async def write(self, data: bytes, /) -> None:
        """Write, waiting for the peer."""
        ...

    def hold_head(self) -> None:
        """Let the next response's head wait for the first bytes of its body."""
        ...


@frozen
class ChunkWriter:
    """Writes the body of a chunked HTTP/1.1 response, whose head went the usual way, as its end will."""

    _connection: Connection

    @property
    def rounds(self) -> Rounds | None:
        """The connection's."""
        return self._connection.rounds

    def now(self, piece: bytes) -> bytes:
        """Write a chunk without waiting; return what is left of it."""
        framed = b"%x\r\n%b\r\n" % (len(piece), piece)
        return framed[self._connection.write_now(framed) :]

    async def rest(self, data: bytes) -> None:
        """Write the rest of a chunk."""
        await self._connection.write(data)


@frozen
class Introduced:
    """An application that finds its connection in the scope.

    Args:
        app: the application.
        connection: what its requests come on.
    """

    _app: AppWrapper
    _connection: Connection

    async def __call__(self, scope: Scope, *server: Any) -> None:
        """Serve one scope."""
        if scope["type"] == "http":
            cast("dict[str, Any]", scope)[_KEY] = self._connection
        await self._app(scope, *server)


def body_follows(scope: Scope) -> None:
    """Say that the response to this request begins now, and that its head need not go ahead of its body."""
    known = cast("dict[str, Any]", scope)
    if known["http_version"] < "2" and _KEY in known:
        known[_KEY].hold_head()


def chunk_writer(scope: Scope) -> ChunkWriter | None:
    """Return the short way for a response without a length, if there is one: others need the layers' framing."""
    known = cast("dict[str, Any]", scope)
    chunked = known["http_version"] == "1.1" and known["method"] != "HEAD"
    return ChunkWriter(known[_KEY]) if chunked and _KEY in known else None
