"""`/openapi.json` against a real server: what the description allows and what it forbids is answered as it says."""

import json
import os

import jsonschema_rs
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from atomr_trio.gateway.description import describe
from atomr_trio.gateway.routes import ROUTES
from tests.e2e.kit import served

MODEL = "echo"
MODELS = [MODEL, "nobody"]
EXAMPLES = 25 * (20 if os.environ.get("HYPOTHESIS_PROFILE") == "fuzz" else 1)
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
REFUSED = [(route.path, name, values) for route in ROUTES for name, values in route.refused.items()]
# Numbers that can be wrong although the schema allows them: because of another field, or of the model.
CONTRADICTIONS = {
    "top_logprobs",
    "min_tokens",
    "best_of",
    "prompt_logprobs",
    "max_tokens",
    "continue_final_message",
    "dimensions",
}
# The last events of the streams that have no `[DONE]`.
LAST = {"message_stop", "response.completed", "response.incomplete"}
# For a schema 1.0 is an integer, for the decoder it is not.
NOT_AN_INT = "got `float`"


def narrowed(document):
    """The description with the names of models that there are, and one that there is not, or all would be a 404."""
    for name in {route.body.__name__ for route in ROUTES if route.body is not None}:
        document["components"]["schemas"][name]["properties"]["model"] = {"enum": MODELS}
    return document


DOCUMENT = narrowed(describe(ROUTES, "1"))
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]
WITH_BODY = [operation for operation in OPERATIONS if operation.body]


@pytest.fixture(scope="module")
def server():
    with served("--runtime", "echo") as running:
        running.wait_ready()
        yield running
        # It lives, and says the right thing.
        assert running.chat("still there", model=MODEL).json()["choices"][0]["message"]["content"] == "still there"


@pytest.fixture(scope="module")
def session(server):
    with requests.Session() as session:
        session.trust_env = False
        yield session


def obey(test):
    return settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )(test)


def check_events(operation, response):
    """Every event of a stream is as described, and the last one says that it is the last."""
    if not response.headers.get("content-type", [""])[0].startswith("text/event-stream"):
        return
    said = DOCUMENT["paths"][operation.path][operation.method]["responses"]["200"]["content"]["text/event-stream"]
    validator = jsonschema_rs.validator_for({**said["x-event-data"], "components": DOCUMENT["components"]})
    *events, last = [line.removeprefix("data: ") for line in response.text.split("\n") if line.startswith("data: ")]
    if last != "[DONE]":
        assert json.loads(last)["type"] in LAST
        events.append(last)
    for event in events:
        validator.validate(json.loads(event))


def may_be_wrong(operation, param):
    """Whether a value that the schema allows can be refused; a number or a truth value cannot."""
    if operation not in WITH_BODY:
        return True
    said = DOCUMENT["paths"][operation.path][operation.method]["requestBody"]["content"]["application/json"]["schema"]
    field = DOCUMENT["components"]["schemas"][said["$ref"].rpartition("/")[2]]["properties"].get(param, {})
    kinds = {kind.get("type") for kind in field.get("anyOf", [field])}
    return param in CONTRADICTIONS or not kinds <= {"integer", "number", "boolean", "null"}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_what_is_allowed_is_answered_as_described(operation, server, session):
    @obey
    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE), _seed=st.random_module())
    def conforms(case, _seed):
        response = case.call(base_url=server.url, session=session)
        case.validate_response(response, checks=CHECKS)
        check_events(operation, response)
        if response.status_code == 400:
            error = response.json()["error"]
            assert may_be_wrong(operation, error.get("param")) or NOT_AN_INT in error["message"]

    conforms()


@pytest.mark.parametrize("operation", WITH_BODY, ids=lambda operation: operation.label)
def test_what_is_forbidden_is_refused_as_described(operation, server, session):
    @obey
    @given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE), _seed=st.random_module())
    def conforms(case, _seed):
        response = case.call(base_url=server.url, session=session)
        case.validate_response(response, checks=[*CHECKS, checks.negative_data_rejection])

    conforms()


HELLO = {"role": "user", "content": "hello"}
# The least that each route wants to know.
MINIMAL = {
    "/v1/chat/completions": {"model": MODEL, "messages": [HELLO]},
    "/v1/completions": {"model": MODEL, "prompt": "a"},
    "/v1/embeddings": {"model": MODEL, "input": "a"},
    "/v1/messages": {"model": MODEL, "messages": [HELLO], "max_tokens": 5},
    "/v1/messages/count_tokens": {"model": MODEL, "messages": [HELLO]},
    "/v1/responses": {"model": MODEL, "input": "a"},
    "/v1/responses/input_tokens": {"model": MODEL, "input": "a"},
    "/tokenize": {"prompt": "a"},
    "/v1/tokenize": {"prompt": "a"},
    "/detokenize": {"tokens": [1]},
    "/v1/detokenize": {"tokens": [1]},
}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def test_every_route_with_a_body_has_its_least():
    assert set(MINIMAL) == {route.path for route in ROUTES if route.body is not None}


@pytest.mark.parametrize("path", MINIMAL)
def test_unknown_fields_are_ignored(path, server, session):
    known = {name for schema in DOCUMENT["components"]["schemas"].values() for name in schema.get("properties", {})}

    usual = session.post(server.url + path, json=MINIMAL[path], timeout=60).status_code

    @obey
    @given(extra=st.dictionaries(st.text().filter(lambda name: name not in known), JSON, min_size=1, max_size=3))
    def ignored(extra):
        answer = session.post(server.url + path, json=extra | MINIMAL[path], timeout=60)
        assert answer.status_code == usual, answer.text

    ignored()


@pytest.mark.parametrize(("path", "name", "values"), REFUSED)
def test_known_fields_that_are_not_served_are_refused(path, name, values, server, session):
    @settings(obey(lambda: None)._hypothesis_internal_use_settings, max_examples=5)
    @given(value=JSON.filter(lambda value: value is not None and value not in values))
    def refused(value):
        answer = session.post(server.url + path, json=MINIMAL[path] | {name: value}, timeout=60)
        assert answer.status_code == 400
        assert f"`{name}`" in answer.json()["error"]["message"]

    refused()
