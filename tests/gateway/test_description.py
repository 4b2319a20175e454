"""`/openapi.json`: a valid document, of all routes and nothing else, that says what the server does."""

import json
from typing import Any

import jsonschema_rs
import msgspec
import pytest
import schemathesis
from attrs import evolve
from werkzeug.routing import Rule

from atomr_trio import core
from atomr_trio.core import ModelNotFound
from atomr_trio.gateway import GatewaySettings, create_app
from atomr_trio.gateway.access import KeyRing, is_public
from atomr_trio.gateway.description import GENERATION_ERRORS, Entrance, ErrorBody, describe
from atomr_trio.gateway.errors import error_reply, outcome_of, typed_errors
from atomr_trio.gateway.routes import ROUTES
from atomr_trio.gateway.wire import CHAT_NEUTRAL, decode_chat

from .fakes import ScriptedBackend
from .harness import capturing_log, serving
from .test_app import HI, app_of, ask

OPEN = Entrance(is_public)
DOCUMENT = describe(ROUTES, "1.2.3", OPEN)
AUTOMATIC = {"HEAD", "OPTIONS"}


def operations():
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            yield method, path, operation


def template(rule: Rule):
    """The rule as OpenAPI writes it, worked out in another way than the table does."""
    return "".join(f"{{{data}}}" if dynamic else data for dynamic, data in rule._trace).removeprefix("|")


def test_every_registered_route_is_described_and_nothing_else():
    registered = {
        (method, template(rule)) for rule in app_of().url_map.iter_rules() for method in rule.methods - AUTOMATIC
    }
    assert {(method.upper(), path) for method, path, _ in operations()} == registered


def test_it_is_a_valid_document():
    schemathesis.openapi.from_dict(DOCUMENT).validate()


def test_no_reference_points_nowhere():
    def references(value: Any):
        if isinstance(value, dict):
            yield from [value["$ref"]] if "$ref" in value else []
            for each in value.values():
                yield from references(each)
        elif isinstance(value, list):
            for each in value:
                yield from references(each)

    for reference in references(DOCUMENT):
        found = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


def test_every_operation_has_a_text_and_an_id_of_its_own():
    found = [operation for *_, operation in operations()]
    assert all(operation["summary"] and operation["tags"] for operation in found)
    assert len({operation["operationId"] for operation in found}) == len(found)


async def test_it_is_served():
    async with serving(app_of()) as server:
        answer = await server.get("/openapi.json")
    served = json.loads(answer.body)
    assert answer.headers["content-type"] == "application/json"
    assert evolve_version(served) == evolve_version(json.loads(json.dumps(DOCUMENT)))


def test_a_server_with_keys_says_where_one_is_needed_and_what_happens_without():
    document = describe(ROUTES, "1", Entrance(is_public, has_keys=True))
    schemathesis.openapi.from_dict(document).validate()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "x-api-key"}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            needs_key = not is_public(method.upper(), path)
            assert ("security" in operation) == needs_key
            assert not needs_key or "401" in operation["responses"]
            assert not needs_key or ("429" in operation["responses"]) == (method == "post")
            # Anthropic has a status of its own for a server that stops.
            assert not needs_key or {"503", "529"} & set(operation["responses"])


@pytest.mark.parametrize("secret", [None, b"wrong"])
async def test_what_a_key_is_asked_for_answers_as_described(secret):
    ring = KeyRing([])
    headers = [] if secret is None else [(b"authorization", b"Bearer " + secret)]
    app = create_app(ScriptedBackend(), GatewaySettings(access_log=False), log=capturing_log()[0], keys=ring)
    async with serving(app) as server:
        document = json.loads((await server.get("/openapi.json")).body)
        for path, item in document["paths"].items():
            if "get" not in item or "{" in path:
                continue
            answer = await ask(server, "GET", path, headers=headers)
            assert str(answer.status) in item["get"]["responses"]
            assert (answer.status == 401) == ("security" in item["get"])


def evolve_version(document):
    return {**document, "info": {**document["info"], "version": ""}}


def test_a_route_added_to_the_table_is_described():
    async def extra(_gateway):
        """Do something.

        At some length.

        Raises:
            ModelNotFound: it did not work.
        """

    route = evolve(
        ROUTES[0], method="PUT", path="/v1/<path:a>/x/<b>", handler=extra, name="extra", errors=(ModelNotFound,)
    )
    document = describe([*ROUTES, route], "1")
    operation = document["paths"]["/v1/{a}/x/{b}"]["put"]
    assert (operation["summary"], operation["description"]) == ("Do something", "At some length.")
    assert [parameter["name"] for parameter in operation["parameters"]] == ["a", "b"]
    assert set(operation["responses"]) == {"200", "404", "500"}
    schemathesis.openapi.from_dict(document).validate()


def test_an_api_can_have_statuses_of_its_own():
    route = evolve(
        ROUTES[0], errors=(core.Backpressure,), status_of=lambda outcome: {503: 529}.get(outcome.status, outcome.status)
    )
    document = describe([route], "1")
    assert set(document["paths"]["/livez"]["get"]["responses"]) == {"200", "500", "529"}
    schemathesis.openapi.from_dict(document).validate()


def test_an_answer_and_an_error_can_share_a_status():
    route = evolve(ROUTES[1], errors=(core.Backpressure,))
    said = describe([route], "1")["paths"]["/readyz"]["get"]["responses"]["503"]["content"]["application/json"]
    assert said["schema"] == {
        "anyOf": [{"$ref": "#/components/schemas/Ready"}, {"$ref": "#/components/schemas/ErrorBody"}]
    }


# What it says is true.


def validator(name):
    schema = {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
    return jsonschema_rs.validator_for(schema)


ERRORS = [
    core.ModelNotFound("m"),
    core.BadRequest("no", param="n"),
    core.ContextLengthExceeded(10, 5),
    core.RateLimited("p", 1.5),
    core.BudgetExceeded("b"),
    core.Backpressure("busy", retry_after=1.0),
    ValueError("a bug"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_errors_look_as_described(error):
    reply = error_reply(error, "req-1", now=0.0)
    msgspec.json.decode(reply.body, type=ErrorBody)
    assert validator("ErrorBody").is_valid(json.loads(reply.body))
    assert reply.status == outcome_of(type(error)).status
    if "retry-after" in dict(reply.headers):
        assert outcome_of(type(error)).may_say_when


def test_every_typed_error_of_a_generation_is_described():
    for path in ["/v1/chat/completions", "/v1/completions"]:
        described = {int(status) for status in DOCUMENT["paths"][path]["post"]["responses"]}
        assert {outcome_of(kind).status for kind in GENERATION_ERRORS} | {200, 500} == described
    assert {outcome_of(kind).status for kind in typed_errors()} <= described | {410}


@pytest.mark.parametrize(("name", "values"), CHAT_NEUTRAL.items())
def test_what_is_not_served_is_described_as_what_is_taken(name, values):
    chat = validator("ChatRequest")
    for value in [None, *values]:
        decode_chat(json.dumps({**HI, name: value}).encode())
        assert chat.is_valid({**HI, name: value})
    for value in [True, False, 7, "something", {"a": 1}, ["b"]]:
        if value not in values:
            assert not chat.is_valid({**HI, name: value})
            with pytest.raises(core.BadRequest):
                decode_chat(json.dumps({**HI, name: value}).encode())


def test_the_keys_of_a_logit_bias_are_token_ids():
    chat = validator("ChatRequest")
    assert chat.is_valid({**HI, "logit_bias": {"12": 1.0}})
    assert not chat.is_valid({**HI, "logit_bias": {"twelve": 1.0}})
