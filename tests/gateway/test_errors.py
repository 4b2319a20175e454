"""The table from errors to HTTP."""

import json

import attrs
import pytest
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound, RequestEntityTooLarge

from atomr_trio import core
from atomr_trio.gateway import BindError, error_reply
from atomr_trio.gateway.errors import error_object, reply_to_http_exception

SECRET = "secret"
INVALID, SERVER = "invalid_request_error", "server_error"

CASES = [
    (core.ModelNotFound("m"), 404, INVALID, "model_not_found", "model", None),
    (core.BadRequest("no", "top_p"), 400, INVALID, None, "top_p", None),
    (core.Unsupported("audio", "jax"), 400, INVALID, "unsupported", None, None),
    (core.ContextLengthExceeded(9, 8), 400, INVALID, "context_length_exceeded", "messages", None),
    (core.ContentFiltered("x"), 400, INVALID, "content_filter", None, None),
    (core.RateLimited("p", 61.5), 429, "requests", "rate_limit_exceeded", None, "62"),
    (core.RateLimited("p"), 429, "requests", "rate_limit_exceeded", None, None),
    (core.BudgetExceeded("d"), 429, "insufficient_quota", "insufficient_quota", None, None),
    (core.Backpressure("full"), 503, SERVER, "overloaded", None, "1"),
    (core.CircuitOpen("p", 0, 1_700_000_030_000), 503, SERVER, "model_unavailable", None, "30"),
    (core.CircuitOpen("p", 0, 0), 503, SERVER, "model_unavailable", None, "1"),
    (core.DeploymentUnavailable("d", "failed"), 503, SERVER, "model_unavailable", None, None),
    (core.DeploymentUnavailable("d", "loading", 4.0), 503, SERVER, "model_unavailable", None, "4"),
    (core.CudaContextPoisoned(SECRET), 503, SERVER, "model_unavailable", None, "1"),
    (core.OutOfMemory(SECRET), 503, SERVER, "model_unavailable", None, "1"),
    (core.Unrecoverable(SECRET), 503, SERVER, "model_unavailable", None, None),
    (core.ModelLoadError(SECRET), 503, SERVER, "model_unavailable", None, None),
    (core.Timeout(5), 504, SERVER, "timeout", None, None),
    (core.NetworkError(SECRET), 502, SERVER, "upstream_error", None, None),
    (core.ServerError(500, SECRET), 502, SERVER, "upstream_error", None, None),
    (core.Unauthorized(SECRET), 502, SERVER, "upstream_error", None, None),
    (core.Forbidden(SECRET), 502, SERVER, "upstream_error", None, None),
    (core.RequestQuarantined(), 500, SERVER, "request_quarantined", None, None),
    (core.Internal(SECRET), 500, SERVER, None, None, None),
    (core.InferenceError(), 500, SERVER, None, None, None),
    (BindError("h", 1, SECRET), 500, SERVER, None, None, None),
    (ValueError(SECRET), 500, SERVER, None, None, None),
]


FINAL = (core.BudgetExceeded, core.RequestQuarantined)


@pytest.mark.parametrize(("error", "status", "kind", "code", "param", "retry"), CASES)
def test_the_table(error, status, kind, code, param, retry):
    reply = error_reply(error, "req-1", prompt_param="messages", now=1_700_000_000)
    told = json.loads(reply.body)["error"]
    assert (reply.status, told["type"], told["code"], told["param"]) == (status, kind, code, param)
    assert {"message", "type", "code", "param"} <= set(told)
    headers = dict(reply.headers)
    assert headers["content-type"] == "application/json"
    assert int(headers["content-length"]) == len(reply.body)
    assert headers.get("retry-after") == retry
    assert ("retry-after-ms" in headers) == (retry is not None)
    assert headers.get("x-should-retry") == ("false" if isinstance(error, FINAL) else None)
    assert SECRET not in reply.body.decode()
    assert told["message"]


def all_errors(cls=core.InferenceError):
    return {cls}.union(*(all_errors(sub) for sub in cls.__subclasses__() if sub.__module__.startswith("atomr_trio")))


def test_every_error_class_is_in_the_table_test():
    tested = {type(error) for error, *_ in CASES}
    named = {cls for cls in all_errors() if cls.__module__.startswith("atomr_trio.core")}
    assert named <= tested


def test_a_context_error_says_how_long_and_how_long_it_may_be():
    told = error_object(core.ContextLengthExceeded(5000, 2048), "req-1", prompt_param="prompt")["error"]
    assert (told["n_prompt_tokens"], told["n_ctx"], told["param"]) == (5000, 2048, "prompt")
    assert "5000" in told["message"]
    assert "2048" in told["message"]


def test_a_bug_names_the_request():
    assert "req-1" in error_object(ValueError(), "req-1")["error"]["message"]


def test_an_error_alone_in_its_groups_counts_as_itself():
    single = ExceptionGroup("a", [ExceptionGroup("b", [core.Backpressure("full")])])
    several = ExceptionGroup("a", [core.Backpressure("full"), core.Backpressure("full")])
    assert error_reply(single, "req-1").status == 503
    assert error_reply(several, "req-1").status == 500


def test_a_new_subclass_has_its_parents_row():
    @attrs.define
    class Special(core.Backpressure):
        pass

    assert error_reply(Special("x"), "req-1").status == 503


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [(NotFound(), 404, "unknown_url"), (RequestEntityTooLarge(), 413, None), (HTTPException(), 500, None)],
)
def test_what_the_framework_refuses(error, status, code):
    reply = reply_to_http_exception(error)
    told = json.loads(reply.body)["error"]
    assert (reply.status, told["code"]) == (status, code)
    assert told["type"] == (INVALID if status < 500 else SERVER)


def test_a_wrong_method_says_which_are_right():
    reply = reply_to_http_exception(MethodNotAllowed(["GET", "HEAD"]))
    assert dict(reply.headers)["Allow"] == "GET, HEAD"
