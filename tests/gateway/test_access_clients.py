"""The official client, and what it makes of a refusal: which error it raises, and whether it tries again."""

import gc

import openai
import pytest
import trio

from atomr_trio.gateway import ApiKey, GatewaySettings, KeyRing, create_app
from atomr_trio.gateway.access import hashed

from .fakes import MODEL, ScriptedBackend
from .harness import capturing_log, serving

# The client leaves its inner generators to the garbage collector, which Trio points out.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(openai|httpx2|httpcore2):ResourceWarning")

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture(autouse=True, scope="module")
def collect_what_the_client_left():
    yield
    gc.collect()


def app_of(**limits):
    log, entries = capturing_log()
    ring = KeyRing([ApiKey(name="one", sha256=hashed(b"one"), **limits)])
    app = create_app(ScriptedBackend(), GatewaySettings(), log=log, clock=lambda: 1_700_000_000.5, keys=ring)
    return app, entries


async def ask(server, key="one", **fields):
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=2) as client:
        return await client.chat.completions.create(model=MODEL, messages=HI, **{"max_tokens": 5, **fields})


async def test_a_wrong_key(patient_clock):
    app, entries = app_of()
    async with serving(app) as server:
        with pytest.raises(openai.AuthenticationError) as caught:
            await ask(server, "two")
    assert (caught.value.code, len(entries)) == ("invalid_api_key", 1)
    assert caught.value.request_id.startswith("req-")


async def test_a_hidden_deployment(patient_clock):
    app, entries = app_of(deployments=())
    async with serving(app) as server:
        with pytest.raises(openai.NotFoundError) as caught:
            await ask(server)
    assert (caught.value.code, len(entries)) == ("model_not_found", 1)


async def test_an_empty_budget_is_not_tried_again(patient_clock):
    app, entries = app_of(budget_tokens=4)
    async with serving(app) as server:
        with pytest.raises(openai.RateLimitError) as caught:
            await ask(server)
    assert (caught.value.code, len(entries)) == ("insufficient_quota", 1)


async def test_a_limit_is_tried_again_when_it_says(patient_clock):
    app, entries = app_of(requests_per_minute=1)
    async with serving(app) as server:
        await ask(server)
        began = trio.current_time()
        answer = await ask(server)
        assert answer.choices[0].message.content == "hello world"
        # The virtual clock jumps only when nothing else can happen, so it measures the wait that the server named.
        assert 50 < trio.current_time() - began < 62
    assert [entry["status"] for entry in entries] == [200, 429, 200]
