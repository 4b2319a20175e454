"""What travels beside a message: a trace id, a tenant, whatever its sender's context says."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

__all__ = ["METADATA", "NOTHING", "Envelope", "current_metadata", "message_metadata"]

NOTHING: Mapping[str, Any] = MappingProxyType({})
METADATA: ContextVar[Mapping[str, Any]] = ContextVar("atomr_trio_metadata", default=NOTHING)


class Envelope:
    """A message in a mailbox with what belongs to it. A message without any of it is queued bare."""

    __slots__ = ("message", "metadata")

    def __init__(self, message: Any) -> None:
        self.message = message
        self.metadata = METADATA.get()

    def refuse(self, error: Exception) -> None:
        """The message is lost: tell who waits for its answer."""


@contextmanager
def message_metadata(**values: Any) -> Generator[Mapping[str, Any]]:
    """Send all messages of this block with ``values``, added to those of the blocks around it.

    While a handler works on such a message its own messages carry the metadata on, and so do those of the tasks that
    it spawns: ``with message_metadata(trace="4bf9"): ref.tell(message)`` marks everything that follows from it.

    Examples:
        >>> with message_metadata(trace="4bf9"), message_metadata(tenant="a"):
        ...     dict(current_metadata())
        {'trace': '4bf9', 'tenant': 'a'}
    """
    token = METADATA.set(MappingProxyType({**METADATA.get(), **values}))
    try:
        yield METADATA.get()
    finally:
        METADATA.reset(token)


def current_metadata() -> Mapping[str, Any]:
    """Return the metadata of the message in hand, or of the ``message_metadata`` block; empty if there is none."""
    return METADATA.get()
