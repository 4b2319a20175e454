"""What is known of one HTTP request besides its HTTP: who asks, in which trace, and what its answer took."""

from typing import Any, cast

import trio
from attrs import define, field
from hypercorn.typing import Scope
from quart import has_request_context, request

from .access import Account, Network, Peer, TraceContext, peer_of, trace_of
from .charges import Charge

__all__ = ["Note", "current_note", "note_of", "take_note"]

NOTE = "atomr_trio.note"


@define(eq=False)
class Note:
    """Filled in as the request goes on. The access line is made of it.

    Args:
        trace: which trace it belongs to.
        peer: who has sent it.
        began: when, on Trio's clock.
        account: of its key, once that is known.
        charge: what it holds of the account, if it asks for work.
        model: what it asks for.
        tokens_in: of its prompts, once computed.
        tokens_out: of its answers.
        first_token: when the first of them came, on Trio's clock.
    """

    trace: TraceContext
    peer: Peer
    began: float = field(factory=trio.current_time)
    account: Account | None = None
    charge: Charge | None = None
    model: str | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    first_token: float | None = None

    @property
    def owner(self) -> str:
        """Tells this client's things from those of others; empty where there are no keys."""
        return "" if self.account is None else self.account.key.id

    def saw_token(self) -> None:
        """Note the first token, the first time."""
        if self.first_token is None:
            self.first_token = trio.current_time()

    def add_tokens(self, taken: int, made: int) -> None:
        """Count the tokens of an answer, or of a prompt."""
        self.tokens_in = (self.tokens_in or 0) + taken
        self.tokens_out = (self.tokens_out or 0) + made

    def line(self) -> dict[str, Any]:
        """The fields of the access line; those that are not known are left out."""
        first = None if self.first_token is None else round((self.first_token - self.began) * 1000, 1)
        fields = {
            "key": None if self.account is None else self.account.key.name,
            "model": self.model,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "ttft_ms": first,
            "client": self.peer.address,
            "scheme": self.peer.scheme,
            "traceparent": self.trace.parent,
        }
        return {name: value for name, value in fields.items() if value is not None}


def take_note(scope: dict[str, Any], trusted: tuple[Network, ...]) -> Note:
    """Begin the note of a request, and put it into its scope."""
    client = scope.get("client") or ("",)
    headers = scope["headers"]
    note = Note(trace_of(headers), peer_of(str(client[0]), str(scope.get("scheme", "")), headers, trusted))
    scope[NOTE] = note
    return note


def note_of(scope: Scope) -> Note:
    """The note of the request with this scope."""
    return cast("dict[str, Any]", scope)[NOTE]


def current_note() -> Note | None:
    """The note of the request that is being handled; ``None`` if there is none."""
    if not has_request_context():
        return None
    return cast("dict[str, Any]", request.scope).get(NOTE)
