"""What every request passes before its route: is the server still open, who asks, and may they now?"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import trio
from attrs import frozen
from quart import Response, request

from .access import InvalidApiKey, KeyRing, Moment, is_public, presented_secret
from .charges import Charge
from .drain import Drain
from .notes import Note, note_of
from .routes import release_of
from .settings import GatewaySettings

__all__ = ["Door"]


@frozen
class Door:
    """Runs around each request, those for unknown URLs included.

    Args:
        settings: which routes are public, and which pages may ask.
        keys: the valid ones; ``None``: everybody may use everything.
        drain: whether the server stops.
        clock: Unix seconds.
    """

    _settings: GatewaySettings
    _keys: KeyRing | None
    _drain: Drain
    _clock: Callable[[], float]

    async def check(self) -> Response | None:
        """Let the request pass (``None``), or answer it.

        Raises:
            InferenceError: it may not pass, or not now.
        """
        scope = cast("dict[str, Any]", request.scope)
        method, headers = scope["method"], scope["headers"]
        allowed = self._settings.cors.preflight(method, headers)
        if allowed is not None:
            return Response("", 204, {name.decode("ascii"): value.decode("ascii") for name, value in allowed})
        note = note_of(request.scope)
        if is_public(method, scope["path"], self._settings.public_paths):
            with suppress(InvalidApiKey):
                self._identify(note, headers)
            return None
        self._drain.check()
        self._identify(note, headers)
        # Only what asks for work is counted: who looks at the list of models takes nothing from anybody.
        if note.account is not None and method == "POST":
            self._charge(note)
        return None

    async def leave(self, response: Response) -> Response:
        """Run before the response is sent: who has it in hand may ask again at once, and finds its place free."""
        note = note_of(request.scope)
        if note.charge is not None:
            note.charge.leave()
        return response

    def _identify(self, note: Note, headers: Any) -> None:
        if self._keys is None:
            return
        secret = presented_secret(headers)
        if secret is None:
            raise InvalidApiKey
        note.account = self._keys.authenticate(secret, self._clock())

    def _charge(self, note: Note) -> None:
        assert note.account is not None
        charge = Charge(note.account, lambda: Moment(trio.current_time(), self._clock()))
        charge.enter()
        note.charge = charge
        release_of().callback(charge.leave)
