"""From the routes' table to an OpenAPI 3.1 document."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from ._entrance import SCHEMES, Entrance
from ._errors import Outcomes, outcomes
from ._route import Route
from ._schemas import Schemas

__all__ = ["describe"]

Json = dict[str, Any]

_REQUEST_ID = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
_RETRY_AFTER = {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}
_HEADERS: Json = {
    "RequestId": {
        "description": "The request's id in the server's log: the client's own, if it sent a sane one.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
    },
    "RetryAfter": {
        "description": "Seconds after which the request may be sent again.",
        "schema": {"type": "integer", "minimum": 1},
    },
}


def describe(routes: Sequence[Route], version: str, entrance: Entrance | None = None) -> Json:
    """Describe an API.

    Args:
        routes: all of them.
        version: of the server.
        entrance: what requests pass before; everybody may use everything unless given.

    Returns:
        An OpenAPI 3.1 document. The schemas are those that the requests are decoded by, and the answers made of.
    """
    schemas, entrance = Schemas.of(routes), entrance or Entrance()
    schemes = {"securitySchemes": SCHEMES} if entrance.has_keys else {}
    paths: dict[str, Json] = {}
    for route in routes:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route, schemas, entrance)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "atomr_trio",
            "version": version,
            "description": "Fields that a request has beyond these are ignored.",
        },
        "paths": paths,
        "components": {"schemas": schemas.components, "headers": _HEADERS, **schemes},
    }


def _operation(route: Route, schemas: Schemas, entrance: Entrance) -> Json:
    summary, _, more = route.text.partition("\n\n")
    operation: Json = {
        "operationId": route.endpoint,
        "summary": summary.removesuffix("."),
        "tags": [route.tag],
        "responses": _responses(route, schemas, entrance.errors(route)),
    }
    if security := entrance.security(route):
        operation["security"] = security
    if more:
        operation["description"] = more
    if parameters := [*map(_placeholder, route.placeholders), *map(_header, *_columns(route.headers))]:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": _json(schemas.of_type(route.body))}
    return operation


def _columns(table: Mapping[str, str]) -> tuple[Sequence[str], Sequence[str]]:
    return list(table), list(table.values())


def _placeholder(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _header(name: str, meaning: str) -> Json:
    return {"name": name, "in": "header", "description": meaning, "schema": {"type": "string"}}


def _responses(route: Route, schemas: Schemas, before: tuple[type[Exception], ...]) -> Json:
    said: Json = {str(status): _answer(route, status, kind, schemas) for status, kind in route.statuses.items()}
    failure = schemas.of_type(route.failure)
    for status, found in outcomes(dict.fromkeys((*before, *route.errors)), route.status_of).items():
        # A status that is an answer of its own, as the 503 of `/readyz`, can be the error too.
        answer = said.setdefault(str(status), _failure(status, found))
        _add_schema(answer["content"], failure)
    return said


def _answer(route: Route, status: int, kind: Any, schemas: Schemas) -> Json:
    content = {} if kind is None else _json(schemas.of_type(kind))
    if route.events and status == HTTPStatus.OK:
        content |= _event_stream([schemas.of_type(each) for each in (*route.events, route.failure)])
    headers = _REQUEST_ID | {name: _reply_header(meaning) for name, meaning in route.reply_headers.items()}
    return _without_nothing({"description": _phrase(status), "headers": headers, "content": content})


def _failure(status: int, found: Outcomes) -> Json:
    codes = ", ".join(f"`{code}`" for code in found.codes)
    phrase = _phrase(status)
    headers = _REQUEST_ID | _RETRY_AFTER if found.may_say_when else _REQUEST_ID
    return {"description": f"{phrase}: {codes}" if codes else phrase, "headers": headers, "content": {}}


def _phrase(status: int) -> str:
    # Some APIs have statuses that no standard knows.
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else f"Status {status}"


def _reply_header(meaning: str) -> Json:
    return {"description": meaning, "schema": {"type": "string"}}


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _event_stream(kinds: list[Json]) -> Json:
    # OpenAPI 3.1 has no word for the schema of an event, and tools disagree on whether `schema` is that of the text or
    # of each event: none is said but that of the JSON in the data of an event.
    return {"text/event-stream": {"x-event-data": {"anyOf": kinds}}}


def _add_schema(content: Json, schema: Json) -> None:
    known = content.setdefault("application/json", {"schema": schema})
    if known["schema"] != schema:
        known["schema"] = {"anyOf": [known["schema"], schema]}


def _without_nothing(answer: Json) -> Json:
    return {key: value for key, value in answer.items() if value or key == "description"}
