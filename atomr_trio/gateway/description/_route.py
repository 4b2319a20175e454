"""A row of the routes' table: enough to register a route, and to describe it."""

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from attrs import field, frozen
from quart import Response

from atomr_trio.gateway.errors import Outcome

from ._errors import ErrorBody, own_status

__all__ = ["Route"]

Handler = Callable[..., Awaitable[Response]]
# Quart writes `<path:id>`, OpenAPI `{id}`.
_PLACEHOLDER = re.compile(r"<(?:\w+:)?(\w+)>")
# The sections of a docstring are for who calls the function.
_SECTION = re.compile(r"^(?:Args|Raises|Returns):$", re.MULTILINE)


@frozen
class Route:
    """One method of one URL.

    Args:
        method: ``GET``, ``POST``, …; HEAD and OPTIONS come by themselves.
        path: as Quart writes it.
        handler: called with the gateway and the path's placeholders; its docstring is the route's text.
        tag: under which heading it is shown.
        body: the type of the request's JSON body; ``None``: it has none.
        refused: fields of the body that are known and not served, with the values that are taken because they
            change nothing (`atomr_trio.gateway.wire.refuse_unsupported`).
        answers: by status, the type of the JSON answer; ``None``: an answer without a body.
        events: the types that the data of a server-sent event has, for a route that streams.
        errors: what it raises; the statuses follow from the table of errors. Every route may fail with a 500.
        failure: the type of the JSON body of an error.
        status_of: the status of an error, for an API that has others than OpenAI's.
        headers: the request headers that it looks at, with what they mean.
        reply_headers: the same for the headers of its answers.
        name: unique; the handler's name unless given.
        prompt_param: the field of the body that has the prompt, for the messages of errors.
    """

    method: str
    path: str
    handler: Handler
    tag: str = field(kw_only=True)
    body: Any = field(default=None, kw_only=True)
    refused: Mapping[str, tuple[Any, ...]] = field(factory=dict[str, tuple[Any, ...]], kw_only=True)
    answers: Mapping[int, Any] = field(factory=dict[int, Any], kw_only=True)
    events: tuple[Any, ...] = field(default=(), kw_only=True)
    errors: tuple[type[Exception], ...] = field(default=(), kw_only=True)
    failure: Any = field(default=ErrorBody, kw_only=True)
    status_of: Callable[[Outcome], int] = field(default=own_status, kw_only=True)
    headers: Mapping[str, str] = field(factory=dict[str, str], kw_only=True)
    reply_headers: Mapping[str, str] = field(factory=dict[str, str], kw_only=True)
    name: str = field(default="", kw_only=True)
    prompt_param: str | None = field(default=None, kw_only=True)

    @property
    def endpoint(self) -> str:
        """Its unique name."""
        return self.name or self.handler.__name__

    @property
    def template(self) -> str:
        """The path as OpenAPI writes it."""
        return _PLACEHOLDER.sub(r"{\1}", self.path)

    @property
    def placeholders(self) -> list[str]:
        """The names in the path that stand for something."""
        return _PLACEHOLDER.findall(self.path)

    @property
    def text(self) -> str:
        """What it does: the handler's docstring without its sections."""
        return _SECTION.split(inspect.getdoc(self.handler) or "")[0].strip()

    @property
    def statuses(self) -> Mapping[int, Any]:
        """The statuses of its proper answers; a route that only streams has a 200 without JSON."""
        return self.answers or {int(HTTPStatus.OK): None}
