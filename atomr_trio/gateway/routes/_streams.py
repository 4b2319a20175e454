"""``/v1/streams/{id}``: go on with a stream after its connection broke, or end it."""

from quart import Response, request

from atomr_trio.core import BadRequest
from atomr_trio.gateway.kept import KeptStreams, Replay
from atomr_trio.gateway.replay import StreamNotFound

from ._gateway import Gateway, Nothing, current_owner, event_stream, no_content

__all__ = ["LAST_EVENT_ID", "end_stream", "resume_stream"]

LAST_EVENT_ID = {"Last-Event-ID": "The last event that the client has; without it, all events are sent."}
"""The header that tells where to go on, as the description of the API shows it."""


async def resume_stream(gateway: Gateway, id: str) -> Response:
    """The events after the one that the header ``Last-Event-ID`` names; without it, all of them."""
    stream = _kept(gateway, id).get(id)
    after = _last_event_id(request.headers.get("last-event-id", "").strip())
    stream.check(after)
    # Who asks for the headers alone must not take the stream from its reader.
    head = request.method == "HEAD"
    return event_stream(Nothing() if head else Replay(stream, after, gateway.settings.heartbeat), id)


async def end_stream(gateway: Gateway, id: str) -> Response:
    """Cancel the answer: nobody will come back for it."""
    _kept(gateway, id).forget(id, "the client has ended the stream")
    return no_content()


def _kept(gateway: Gateway, id: str) -> KeptStreams:
    # To all but its owner the stream is not there.
    if gateway.kept is None or gateway.kept.get(id).owner != current_owner():
        raise StreamNotFound(id)
    return gateway.kept


def _last_event_id(given: str) -> int:
    if not given:
        return 0
    if not (given.isascii() and given.isdigit() and len(given) < 16):
        raise BadRequest("`Last-Event-ID` must be the id of an event of this stream")
    return int(given)
