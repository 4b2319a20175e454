"""HEAD, OPTIONS and 405, on every route of the table."""

import json
import re

import pytest

from atomr_trio.gateway.routes import ROUTES

from .fakes import MODEL, NEVER, say
from .harness import serving
from .test_app import CHAT, app_of, ask, body_of
from .test_resume import read_events, world

ALL = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"}
PATHS = sorted({route.path for route in ROUTES})


def url(path):
    return re.sub(r"<(\w+:)?\w+>", MODEL, path) if "models" in path else re.sub(r"<\w+>", "s-1", path)


def methods_of(path):
    # Another route's placeholder may stand for this path too.
    patterns = {route.endpoint: re.sub(r"<\w+>", "[^/]+", re.sub(r"<path:\w+>", ".+", route.path)) for route in ROUTES}
    own = {route.method for route in ROUTES if re.fullmatch(patterns[route.endpoint], url(path))}
    return own | {"OPTIONS"} | ({"HEAD"} if "GET" in own else set())


@pytest.mark.parametrize("path", PATHS)
async def test_options_names_the_methods(path):
    async with serving(app_of()) as server:
        answer = await ask(server, "OPTIONS", url(path))
    assert (answer.status, answer.body) == (200, b"")
    assert set(answer.headers["allow"].split(", ")) == methods_of(path)


@pytest.mark.parametrize("path", PATHS)
async def test_other_methods_are_refused_and_the_connection_goes_on(path):
    async with serving(app_of()) as server, await server.connect() as client:
        for method in sorted(ALL - methods_of(path)):
            answer = await client.request(method, url(path), b"{}" if method == "PUT" else b"")
            assert answer.status == 405, method
            assert set(answer.headers["allow"].split(", ")) == methods_of(path)
            if method != "HEAD":
                assert json.loads(answer.body)["error"]["type"] == "invalid_request_error"
        assert (await client.get("/livez")).status == 200
    assert server.entries == []


@pytest.mark.parametrize("path", [path for path in PATHS if "HEAD" in methods_of(path)])
async def test_head_is_get_without_its_body(path):
    async with serving(app_of()) as server, await server.connect() as client:
        got, head = await client.get(url(path)), await client.request("HEAD", url(path))
        assert (head.status, head.body) == (got.status, b"")
        for name in ["content-type", "content-length", "cache-control"]:
            assert head.headers.get(name) == got.headers.get(name)
        assert (await client.get("/livez")).status == 200


async def test_head_of_a_stream_leaves_it_to_its_reader():
    async with world(say("a", "b", NEVER)) as it:
        client, answer = await it.ask()
        async with client:
            await read_events(client, 2)
            head = await it.go_on(answer.headers["x-stream-id"], method="HEAD")
            assert (head.status, head.body) == (200, b"")
            assert head.headers["content-type"].startswith("text/event-stream")
            assert (await it.go_on(answer.headers["x-stream-id"], method="DELETE")).status == 204


async def test_head_of_a_route_that_takes_posts_is_refused():
    async with serving(app_of()) as server, await server.connect() as client:
        assert (await client.request("HEAD", CHAT)).status == 405
        assert (await client.request("POST", CHAT, body_of())).status == 200
