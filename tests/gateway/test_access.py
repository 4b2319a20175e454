"""Keys and limits over real connections: who gets in, what they see, and what their answers take."""

import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.core import Backpressure
from atomr_trio.gateway import ApiKey, Cors, GatewaySettings, KeyRing, create_app
from atomr_trio.gateway.access import hashed

from .fakes import MODEL, NEVER, ScriptedBackend, say
from .harness import capturing_log, serving

CHAT = "/v1/chat/completions"
NOW = 1_700_000_000
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def key(secret="one", **fields):
    return ApiKey(name=secret, sha256=hashed(secret.encode()), **fields)


def bearer(secret="one"):
    return [("authorization", f"Bearer {secret}")]


def body_of(**fields):
    fields = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10, **fields}
    return json.dumps(fields).encode()


@attrs.define
class World:
    server: object
    backend: ScriptedBackend
    ring: KeyRing
    entries: list

    def account(self, secret="one"):
        return self.ring.authenticate(secret.encode(), NOW)

    async def request(self, method, path, headers=(), body=b""):
        async with await self.server.connect() as client:
            return await client.request(method, path, body, headers)

    async def chat(self, secret="one", headers=(), **fields):
        return await self.request("POST", CHAT, [*bearer(secret), *headers], body_of(**fields))

    @asynccontextmanager
    async def open(self, secret="one", **fields):
        """A request whose client is there until the block ends."""
        self.backend.busy = trio.Event()
        async with await self.server.connect() as client:
            await client.start("POST", CHAT, body_of(**fields), bearer(secret))
            await client.finish(body_of(**fields))
            await self.backend.busy.wait()
            yield client

    def nothing_is_held(self):
        accounts = self.ring._accounts.values()
        return all(a.open == a.token_budget.reserved == a.usd_budget.reserved == 0 for a in accounts)


@asynccontextmanager
async def world(*keys, scripts=(), **given):
    log, entries = capturing_log()
    backend = ScriptedBackend(list(scripts) or [say("hello", " ", "world")])
    ring = KeyRing(keys)
    async with trio.open_nursery() as nursery:

        def spawn(fn, *args, name=None):
            nursery.start_soon(fn, *args, name=name)

        app = create_app(backend, GatewaySettings(**given), log=log, clock=lambda: NOW, spawn=spawn, keys=ring)
        async with serving(app) as server:
            yield World(server, backend, ring, entries)
        nursery.cancel_scope.cancel(reason="the test is over")
    assert [entry for entry in entries if entry["log_level"] == "error"] == []


def error_of(answer):
    return json.loads(answer.body)["error"]


# Who gets in.


@pytest.mark.parametrize(
    "headers",
    [
        [],
        bearer("other"),
        [("x-api-key", "")],
        [("authorization", "Basic one")],
        [("x-api-key", "One")],
        bearer("expired"),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", CHAT), ("GET", "/v1/models"), ("GET", "/nothing"), ("DELETE", CHAT), ("GET", "/livez/")],
)
async def test_without_a_valid_key_nothing_is_told(method, path, headers):
    async with world(key(), key("expired", expires=datetime.fromtimestamp(NOW, UTC))) as there:
        answer = await there.request(method, path, headers, body_of() if method == "POST" else b"")
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert error_of(answer)["code"] == "invalid_api_key"
        assert error_of(answer)["type"] == "invalid_request_error"
        assert "x-request-id" in answer.headers
        assert there.backend.submitted == []


@pytest.mark.parametrize("headers", [bearer(), [("x-api-key", "one")]])
async def test_a_key_lets_in(headers):
    async with world(key()) as there:
        assert (await there.request("POST", CHAT, headers, body_of())).status == 200
        assert (await there.request("GET", "/v1/models", headers)).status == 200


async def test_probes_and_questions_need_no_key_and_tell_no_names():
    async with world(key()) as there:
        for path in ["/livez", "/readyz", "/health"]:
            answer = await there.request("GET", path)
            assert answer.status == 200
            assert MODEL.encode() not in answer.body
        assert (await there.request("OPTIONS", CHAT)).status == 200
        named = await there.request("GET", "/readyz", bearer())
        assert MODEL.encode() in named.body
        assert (await there.request("GET", "/readyz", bearer("wrong"))).status == 200


async def test_a_ring_without_keys_lets_nobody_in():
    async with world() as there:
        assert (await there.chat()).status == 401


async def test_a_key_that_goes_lets_in_no_more_and_what_runs_goes_on():
    more = trio.Event()
    async with world(key(), scripts=[say("a", more, "b")]) as there, there.open(stream=True) as client:
        assert (await client.head()).status == 200
        there.ring.replace([key("two")])
        assert (await there.chat("one")).status == 401
        more.set()
        assert b"[DONE]" in await client.answer_body()
        assert (await there.request("GET", "/v1/models", bearer("two"))).status == 200


async def test_a_refusal_leaves_the_connection_usable():
    async with world(key()) as there, await there.server.connect() as client:
        for secret, status in [("wrong", 401), ("one", 200), ("wrong", 401), ("one", 200)]:
            await client.start("POST", CHAT, body_of(), bearer(secret))
            await trio.testing.wait_all_tasks_blocked(0.01)
            await client.finish(body_of())
            assert (await client.answer()).status == status


@pytest.mark.parametrize(
    "announced", ["content-length: 10000000", f"content-length: {'9' * 19}", "transfer-encoding: chunked"]
)
async def test_a_stranger_is_told_before_a_long_body(announced, patient_clock):
    async with world(key()) as there, await there.server.connect() as client:
        began = trio.current_time()
        await client.raw(f"POST {CHAT} HTTP/1.1\r\nhost: test\r\n{announced}\r\n\r\n".encode())
        data = await client.wait_closed()
        assert data.startswith(b"HTTP/1.1 401")
        assert b"connection: close" in data
        assert trio.current_time() - began < 1


# What they see.


async def test_a_deployment_that_a_key_may_not_use_is_not_there():
    async with world(key(deployments=("other",)), key("all")) as there:
        refused, unknown = await there.chat(), await there.chat("all", model="nothing")
        assert refused.status == unknown.status == 404
        same = {"type": "invalid_request_error", "code": "model_not_found", "param": "model"}
        assert same.items() <= error_of(refused).items()
        assert error_of(refused)["message"].replace(MODEL, "nothing") == error_of(unknown)["message"]
        listed = json.loads((await there.request("GET", "/v1/models", bearer())).body)["data"]
        assert [model["id"] for model in listed] == ["other"]
        assert (await there.request("GET", f"/v1/models/{MODEL}", bearer())).status == 404
        assert MODEL.encode() not in (await there.request("GET", "/readyz", bearer())).body
        assert (await there.request("GET", f"/v1/models/{MODEL}", bearer("all"))).status == 200


async def test_a_kept_stream_is_there_for_its_owner_only():
    more = trio.Event()
    keys = [key(), key("two")]
    async with world(*keys, scripts=[say("a", more, "b")], resume_window=30.0) as there:
        async with there.open(stream=True) as client:
            path = f"/v1/streams/{(await client.head()).headers['x-stream-id']}"
        for method in ["GET", "DELETE"]:
            answer = await there.request(method, path, bearer("two"))
            assert (answer.status, error_of(answer)["code"]) == (404, "stream_not_found")
        # It goes on without its client, and so does its place.
        assert there.account().open == 1
        more.set()
        assert b"[DONE]" in (await there.request("GET", path, bearer())).body
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert there.nothing_is_held()


async def test_each_key_has_its_part_of_the_prefix_cache():
    keys = [key(), key("two"), key("three", share_prefixes=True), key("four", share_prefixes=True)]
    async with world(*keys) as there:
        for secret in ["one", "two", "three", "four"]:
            for salt in [None, "s", "key:x"]:
                await there.chat(secret, cache_salt=salt)
        salts = [batch.cache_salt for batch in there.backend.submitted]
        assert salts[6:9] == salts[9:12]
        assert len(set(salts[:9])) == 9


async def test_without_keys_the_salt_is_the_clients():
    log, _ = capturing_log()
    backend = ScriptedBackend()
    async with serving(create_app(backend, log=log)) as server, await server.connect() as client:
        await client.request("POST", CHAT, body_of(cache_salt="s"))
    assert [batch.cache_salt for batch in backend.submitted] == ["s"]


# What their answers take.


async def test_the_limit_of_requests(patient_clock):
    async with world(key(requests_per_minute=2), key("two")) as there:
        first = await there.chat()
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert first.headers["x-ratelimit-reset-requests"] == "1m1s"
        assert "x-ratelimit-limit-tokens" not in first.headers
        assert (await there.chat(model="nothing")).status == 404
        refused = await there.chat()
        assert (refused.status, error_of(refused)["type"], error_of(refused)["code"]) == (
            429, "requests", "rate_limit_exceeded",
        )  # fmt: skip
        wait = int(refused.headers["retry-after-ms"]) / 1000
        assert int(refused.headers["retry-after"]) >= wait > 50
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert "x-should-retry" not in refused.headers
        assert (await there.request("GET", "/v1/models", bearer())).status == 200
        assert (await there.chat("two")).status == 200
        await trio.sleep(wait)
        assert (await there.chat()).status == 200


async def test_the_limit_of_tokens(patient_clock):
    async with world(key(tokens_per_minute=30)) as there:
        first = await there.chat()
        assert (first.status, first.headers["x-ratelimit-limit-tokens"]) == (200, "30")
        # Seven of the prompt, by the usage, and three of the answer, in place of what was reserved.
        assert there.account().tokens.total(trio.current_time()) == 10
        large = await there.chat(max_tokens=28)
        assert (large.status, error_of(large)["type"], large.headers["x-should-retry"]) == (429, "tokens", "false")
        late = await there.chat(max_tokens=20)
        assert (late.status, error_of(late)["type"]) == (429, "tokens")
        assert late.headers["x-ratelimit-remaining-tokens"] == "20"
        await trio.sleep(int(late.headers["retry-after-ms"]) / 1000)
        assert (await there.chat(max_tokens=20, stream=True)).status == 200


async def test_the_limit_of_open_requests():
    more = trio.Event()
    async with world(key(max_concurrent=1), scripts=[say("a", more)]) as there:
        async with there.open():
            refused = await there.chat()
            assert (refused.status, error_of(refused)["type"], refused.headers["retry-after"]) == (429, "requests", "1")
            more.set()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert there.nothing_is_held()
        assert (await there.chat()).status == 200


async def test_a_budget_of_tokens():
    async with world(key(budget_tokens=25)) as there:
        assert (await there.chat()).status == 200
        large = await there.chat(max_tokens=13)
        assert (large.status, error_of(large)["code"], large.headers["x-should-retry"]) == (
            429, "insufficient_quota", "false",
        )  # fmt: skip
        assert "retry-after" not in large.headers
        assert (await there.chat()).status == 200
        # Five are left, and the answer to this takes more than was reserved for it.
        assert (await there.chat(max_tokens=2)).status == 200
        assert error_of(await there.chat(max_tokens=1))["type"] == "insufficient_quota"
        assert there.account().token_budget.spent == 30


async def test_a_budget_of_dollars():
    async with world(key(budget_usd=0.02)) as there:
        assert (await there.chat(max_tokens=15)).status == 200
        assert there.account().usd_budget.spent == 3_000_000
        assert (await there.chat(max_tokens=18)).status == 429
        assert (await there.chat(max_tokens=17)).status == 200


async def test_what_others_hold_of_a_budget_comes_back():
    more = trio.Event()
    async with world(key(budget_tokens=30), scripts=[say("a", more)]) as there:
        async with there.open(max_tokens=20):
            held = await there.chat(max_tokens=20)
            assert (held.status, error_of(held)["code"], held.headers["retry-after"]) == (
                429, "rate_limit_exceeded", "1",
            )  # fmt: skip
            more.set()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert there.account().token_budget.spent == 8
        assert (await there.chat(max_tokens=19)).status == 200


async def test_choices_share_their_prompt():
    async with world(key(budget_tokens=1000)) as there:
        await there.chat(n=3)
        assert there.account().token_budget.spent == 7 + 3 * 3
        body = json.dumps({"model": MODEL, "prompt": ["a", "b"], "n": 2, "max_tokens": 5}).encode()
        await there.request("POST", "/v1/completions", bearer(), body)
        assert there.account().token_budget.spent == 16 + 2 * (7 + 2 * 3)


async def test_an_answer_without_a_bound_gets_one_if_its_key_has_limits():
    async with world(key(tokens_per_minute=1000), key("two"), assumed_output_tokens=50) as there:
        await there.chat(max_tokens=None)
        await there.chat("two", max_tokens=None)
        assert [batch.sampling.max_tokens for batch in there.backend.submitted] == [50, None]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_pays_for_what_was_made(stream):
    async with world(key(budget_tokens=100), scripts=[say("a", "b", NEVER)]) as there:
        async with there.open(stream=stream):
            await trio.testing.wait_all_tasks_blocked(0.01)
        await there.backend.idle.wait()
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert there.nothing_is_held()
        assert there.account().token_budget.spent == 3 + 2


async def test_an_answer_that_fails_before_its_first_token_costs_nothing():
    async with world(key(budget_tokens=100), scripts=[say(Backpressure("full"))]) as there:
        answer = await there.chat()
        assert (answer.status, error_of(answer)["code"]) == (503, "overloaded")
        assert there.account().token_budget.spent == 0
        assert there.nothing_is_held()


@settings(max_examples=15)
@given(st.data(), st.random_module())
def test_whatever_happens_nothing_stays_held(data, _random):
    plans = data.draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "stream": st.booleans(),
                    "n": st.integers(1, 3),
                    "max_tokens": st.integers(1, 20),
                    "leave": st.sampled_from([0.0, 0.5, 1.5, 2.5, 100.0]),
                    "body": st.sampled_from(["whole", "half", "bad"]),
                }
            ),
            min_size=1,
            max_size=5,
        )
    )
    scripts = [say("a", 1, "b", 1, "c"), say(2, Backpressure("full")), say("a", 1, RuntimeError("secret"))]
    script = data.draw(st.sampled_from(scripts))
    limits = key(max_concurrent=3, tokens_per_minute=200, budget_tokens=120)

    async def one(there, plan):
        body = b"{" if plan["body"] == "bad" else body_of(**{k: plan[k] for k in ("stream", "n", "max_tokens")})
        async with await there.server.connect() as client:
            await client.start("POST", CHAT, body, bearer())
            if plan["body"] != "half":
                await client.finish(body)
            with trio.move_on_after(plan["leave"]):
                await client.answer()

    async def main():
        log, _ = capturing_log()
        ring = KeyRing([limits])
        backend = ScriptedBackend([script])
        app = create_app(backend, GatewaySettings(), log=log, clock=lambda: NOW, keys=ring)
        async with serving(app) as server:
            there = World(server, backend, ring, [])
            async with trio.open_nursery() as nursery:
                for plan in plans:
                    nursery.start_soon(one, there, plan)
            await trio.sleep(60)
            account = there.account()
            assert there.nothing_is_held()
            assert account.token_budget.spent <= 120 + 5 * 3 * 7

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.02))


@pytest.mark.parametrize("stream", [False, True])
async def test_the_place_is_free_before_the_answer_ends(stream):
    async with world(key(max_concurrent=1, budget_tokens=10_000), scripts=[say("a")]) as there:
        for _ in range(20):
            async with await there.server.connect() as client:
                await client.start("POST", CHAT, body_of(stream=stream), bearer())
                await client.finish(body_of(stream=stream))
                assert (await client.head()).status == 200
                while b"[DONE]" not in (await client.piece() if stream else b"[DONE]"):
                    pass
                assert there.nothing_is_held()


# What is written and passed on.


async def test_the_access_line_and_the_trace(patient_clock):
    async with world(key(), scripts=[say(0.5, "a", "b")], trusted_proxies=["127.0.0.0/8"]) as there:
        headers = [
            ("traceparent", PARENT), ("tracestate", "a=1"), ("x-forwarded-for", "6.6.6.6, 1.2.3.4"),
            ("x-forwarded-proto", "https"),
        ]  # fmt: skip
        assert (await there.chat(headers=headers, stream=True)).status == 200
        await there.request("GET", "/livez")
        await trio.testing.wait_all_tasks_blocked(0.01)
        chat, lively = there.entries
        assert {name: chat[name] for name in ["key", "model", "tokens_in", "tokens_out", "client", "scheme"]} == {
            "key": "one", "model": MODEL, "tokens_in": 7, "tokens_out": 2, "client": "1.2.3.4", "scheme": "https",
        }  # fmt: skip
        assert 500 <= chat["ttft_ms"] <= chat["ms"]
        assert chat["traceparent"] == PARENT
        assert not {"key", "model", "ttft_ms", "tokens_in"} & set(lively)
        assert lively["traceparent"] != PARENT
        assert "one" not in json.dumps(there.entries).replace('"key": "one"', "")
        (batch,) = there.backend.submitted
        assert (batch.metadata["traceparent"], batch.metadata["tracestate"]) == (PARENT, "a=1")


async def test_a_long_name_is_cut_in_the_log():
    async with world(key()) as there:
        await there.chat(model="x" * 10_000)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert there.entries[0]["model"] == "x" * 128


async def test_pages_of_other_origins():
    page = "https://chat.example.org"
    asks = [("origin", page), ("access-control-request-method", "POST"), ("access-control-request-headers", "x-a")]
    async with world(key(), cors=Cors([page])) as there:
        preflight = await there.request("OPTIONS", CHAT, asks)
        assert (preflight.status, preflight.body) == (204, b"")
        assert preflight.headers["access-control-allow-origin"] == page
        assert preflight.headers["access-control-allow-headers"] == "x-a"
        refused = await there.request("POST", CHAT, [("origin", page)], body_of())
        assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, page)
        other = await there.request("OPTIONS", CHAT, [("origin", "https://evil.example"), *asks[1:]])
        assert "access-control-allow-origin" not in other.headers
        assert other.headers["vary"] == "Origin"
    async with world(key()) as there:
        preflight = await there.request("OPTIONS", CHAT, asks)
        assert "access-control-allow-origin" not in preflight.headers
