"""Embeddings over real connections, from the runtime's actors: the official client, raw requests, keys, failures."""

import gc
import json
import struct
from base64 import b64decode
from contextlib import asynccontextmanager

import attrs
import openai
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.core import (
    BadRequest,
    CudaContextPoisoned,
    Deployment,
    Embedding,
    ExecuteBatch,
    ModelRunner,
    Serving,
    TokenChunk,
    TokenUsage,
    Unsupported,
)
from atomr_trio.gateway import ApiKey, GatewaySettings, KeyRing, create_app
from atomr_trio.gateway.access import hashed
from atomr_trio.gateway.actor import RuntimeBackend
from atomr_trio.runners.echo import EchoRunner
from atomr_trio.runtime import Cluster

from .harness import capturing_log, serving

# The client leaves its inner generators to the garbage collector, which Trio points out.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(openai|httpx2|httpcore2):ResourceWarning")

NOW = 1_700_000_000
SIZE = 5


@pytest.fixture(autouse=True, scope="module")
def collect_what_the_client_left():
    yield
    gc.collect()


def vector_of(prompt):
    """What `Vectors` makes of a prompt: of a length that is not 1, and exact in float32."""
    codes = prompt if isinstance(prompt, tuple) else prompt.encode()
    return [float(len(codes)), *(float(codes[at % len(codes)]) for at in range(SIZE - 1))]


class Vectors(ModelRunner):
    """Makes vectors. Some prompts make it hang, say nothing, or die, once."""

    embeds = True
    resumable = True

    def __init__(self):
        self.running, self.most, self.seen = set(), 0, []
        self._dead = trio.Event()
        self._killed = False

    @asynccontextmanager
    async def session(self):
        self._dead = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._die)
            yield
            nursery.cancel_scope.cancel()

    async def _die(self):
        await self._dead.wait()
        raise CudaContextPoisoned("gone")

    async def execute(self, batch, out):
        assert batch.embed
        self.seen.append(batch)
        self.running.add(batch.request_id)
        self.most = max(self.most, len(self.running))
        try:
            await trio.lowlevel.checkpoint()
            if batch.prompt == "hang":
                await trio.sleep_forever()
            if batch.prompt == "die" and not self._killed:
                self._killed = True
                self._dead.set()
                await trio.sleep_forever()
            if batch.prompt != "mute":
                embedding = Embedding.of(vector_of(batch.prompt))
                await out.send(TokenChunk(embedding=embedding, usage=TokenUsage(len(batch.prompt))))
        finally:
            self.running.discard(batch.request_id)


class Broken(Vectors):
    """Refuses one prompt."""

    async def execute(self, batch, out):
        if batch.prompt == "broken":
            raise BadRequest("broken")
        await super().execute(batch, out)


class Talker(ModelRunner):
    """Makes no embeddings."""

    async def execute(self, batch, out):
        await out.send(TokenChunk(text_delta="hi"))


@attrs.define
class World:
    server: object
    runner: Vectors
    cluster: Cluster
    ring: KeyRing | None
    entries: list

    async def ask(self, headers=(), **fields):
        async with await self.server.connect() as client:
            body = json.dumps({"model": "m", **fields}).encode()
            answer = await client.request("POST", "/v1/embeddings", body, list(headers))
        return answer.status, json.loads(answer.body)

    def client(self):
        return openai.AsyncOpenAI(base_url=f"{self.server.url}/v1", api_key="one", max_retries=0)

    @property
    def account(self):
        return self.ring.authenticate(b"one", NOW)


@asynccontextmanager
async def gateway(runner=None, *, limits=None, places=32, errors=0, **app):
    runner, (log, entries) = runner or Vectors(), capturing_log()
    ring = None if limits is None else KeyRing([ApiKey(name="one", sha256=hashed(b"one"), **limits)])

    async def create(_deployment):
        return runner

    async with Cluster.open(create_runner=create) as cluster:
        await cluster.deploy(Deployment(name="m", model="m", runtime="v", serving=Serving(max_concurrent=places)))
        backend = RuntimeBackend(cluster.directory, cluster._clients.ctx)
        app = create_app(backend, GatewaySettings(**app), log=log, clock=lambda: NOW, keys=ring)
        async with serving(app) as server:
            yield World(server, runner, cluster, ring, entries)
    assert [entry["log_level"] for entry in entries].count("error") == errors


def unit(values):
    return list(Embedding.of(values).unit().values)


def vectors_in(body):
    assert [found["index"] for found in body["data"]] == list(range(len(body["data"])))
    return [found["embedding"] for found in body["data"]]


async def test_the_official_client():
    texts = ["a", "bc", "déf"]
    async with gateway() as world, world.client() as client:
        # It asks for base64 by itself.
        answer = await client.embeddings.create(model="m", input=texts, user="somebody")
        floats = await client.embeddings.create(model="m", input=texts, encoding_format="float")
        ids = await client.embeddings.create(model="m", input=[[1, 2], [3]])
        [single] = (await client.embeddings.create(model="m", input=[7, 8, 9], dimensions=2)).data
        with pytest.raises(openai.BadRequestError) as caught:
            await client.embeddings.create(model="m", input="x", dimensions=SIZE + 1)
    assert [found.embedding for found in answer.data] == [vector_of(text) for text in texts]
    assert [found.embedding for found in floats.data] == [vector_of(text) for text in texts]
    assert [found.index for found in answer.data] == [0, 1, 2]
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (6, 6)
    assert (answer.model, answer.object, answer.data[0].object) == ("m", "list", "embedding")
    assert [found.embedding for found in ids.data] == [vector_of((1, 2)), vector_of((3,))]
    assert single.embedding == unit(vector_of((7, 8, 9))[:2])
    assert caught.value.param == "dimensions"


async def test_the_sync_client():
    def embed(url):
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            return client.embeddings.create(model="m", input="abc").data[0].embedding

    async with gateway() as world:
        assert await trio.to_thread.run_sync(embed, world.server.url) == vector_of("abc")


@settings(max_examples=20)
@given(
    inputs=st.lists(st.text(min_size=1, max_size=5).filter(lambda text: text != "hang"), min_size=1, max_size=6)
    | st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=3), min_size=1, max_size=6),
    dimensions=st.none() | st.integers(1, SIZE),
    parallel=st.integers(1, 4),
    _seed=st.random_module(),
)
async def test_both_formats_agree_and_come_in_order(inputs, dimensions, parallel, _seed):
    async with gateway(max_parallel_choices=parallel) as world:
        fields = {"input": inputs} if dimensions is None else {"input": inputs, "dimensions": dimensions}
        _, floats = await world.ask(**fields)
        _, coded = await world.ask(encoding_format="base64", **fields)
    decoded = [struct.unpack(f"<{dimensions or SIZE}f", b64decode(text)) for text in vectors_in(coded)]
    assert [list(values) for values in decoded] == vectors_in(floats)
    wanted = [vector_of(tuple(each) if isinstance(each, list) else each) for each in inputs]
    expected = wanted if dimensions is None else [unit(values[:dimensions]) for values in wanted]
    assert vectors_in(floats) == [list(Embedding.of(values).values) for values in expected]
    assert floats["usage"]["prompt_tokens"] == sum(map(len, inputs))
    assert world.runner.most <= parallel


REFUSED = [
    ({}, "input"),
    ({"input": ""}, "input"),
    ({"input": []}, "input"),
    ({"input": ["a", ""]}, "input"),
    ({"input": [[1], []]}, "input"),
    ({"input": ["a", 1]}, "input"),
    ({"input": [[1], "a"]}, "input"),
    ({"input": [-1]}, "input[0]"),
    ({"input": {"text": "a"}}, "input"),
    ({"input": ["a"] * 4}, "input"),
    ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
    ({"input": "a", "dimensions": 0}, "dimensions"),
    ({"input": "a", "dimensions": 6}, "dimensions"),
    ({"input": "a", "truncate_prompt_tokens": 5}, "truncate_prompt_tokens"),
    ({"input": "a", "priority": 1}, "priority"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED)
async def test_what_is_refused_is_named(fields, param):
    async with gateway(max_embeddings=3) as world:
        status, body = await world.ask(**fields)
        assert (status, body["error"]["param"]) == (400, param)
        assert (await world.ask(input=["a"] * 3))[0] == 200


async def test_an_unknown_model():
    async with gateway() as world:
        status, body = await world.ask(input="a", model="nothing")
    assert (status, body["error"]["code"]) == (404, "model_not_found")


async def test_a_runner_that_makes_none_is_never_asked():
    async with gateway(Talker()) as world:
        status, body = await world.ask(input="a")
        assert (status, body["error"]["code"]) == (400, "unsupported")
        # Nor by a program that prepares nothing.
        with pytest.raises(Unsupported):
            async with world.cluster.submit(ExecuteBatch(request_id="r", model="m", prompt="a", embed=True)) as stream:
                await stream.collect()


async def test_a_runner_that_says_it_makes_them_and_does_not():
    async with gateway(errors=1) as world:
        status, body = await world.ask(input=["a", "mute"])
    assert (status, body["error"]["type"]) == (500, "server_error")


async def test_echo_tells_texts_apart():
    async with gateway(EchoRunner()) as world:
        _, body = await world.ask(input=["one two", "one", "one two", "one  two"])
        first, second, third, fourth = vectors_in(body)
        _, ids = await world.ask(input=[[1, 2], [1], [12]])
    assert first == third != second
    assert fourth not in (first, second)
    assert body["usage"]["prompt_tokens"] == 7
    assert abs(sum(value * value for value in first) - 1) < 1e-6
    assert len({tuple(values) for values in vectors_in(ids)}) == 3
    assert ids["usage"]["prompt_tokens"] == 4


async def test_a_client_that_leaves_takes_its_request_along():
    async with gateway() as world:
        body = json.dumps({"model": "m", "input": ["a", "hang", "hang"]}).encode()
        async with await world.server.connect() as client:
            await client.start("POST", "/v1/embeddings", body)
            await client.finish(body)
            while len(world.runner.running) < 2:
                await trio.lowlevel.checkpoint()
        while world.runner.running:
            await trio.lowlevel.checkpoint()


async def test_one_failure_ends_the_request_and_cancels_the_others():
    async with gateway(Broken()) as world:
        status, body = await world.ask(input=["hang", "a", "broken"])
        assert (status, body["error"]["message"]) == (400, "broken")
        await trio.testing.wait_all_tasks_blocked()
        assert world.runner.running == set()


async def test_a_dead_engine_costs_time_alone():
    async with gateway() as world:
        status, body = await world.ask(input=["a", "die", "bc"])
    assert (status, vectors_in(body)) == (200, [vector_of(text) for text in ["a", "die", "bc"]])
    assert [batch.prompt for batch in world.runner.seen].count("die") == 2


async def test_prompts_of_two_keys_have_nothing_to_do_with_each_other():
    async with gateway(limits={}) as world:
        await world.ask([("authorization", "Bearer one")], input="a", cache_salt="s")
    [batch] = world.runner.seen
    assert batch.cache_salt.startswith("key:")
    assert batch.cache_salt.endswith(":s")


async def test_a_key_pays_for_its_prompts():
    bearer = [("authorization", "Bearer one")]
    async with gateway(limits={"tokens_per_minute": 8, "budget_tokens": 8}) as world:
        assert (await world.ask(input="a"))[0] == 401
        assert (await world.ask(bearer, input=["aaaa", "bb"]))[0] == 200
        assert (world.account.token_budget.spent, world.account.open) == (6, 0)
        status, _ = await world.ask(bearer, input="a" * 40)
        assert (status, world.account.token_budget.reserved) == (429, 0)
        # What was refused has cost nothing.
        assert (await world.ask(bearer, input=["a", "b"]))[0] == 200
        assert world.account.token_budget.spent == 8
    lines = [entry for entry in world.entries if entry["event"] == "request"]
    assert [line.get("tokens_in") for line in lines] == [None, 6, None, 2]
    assert (lines[1]["model"], lines[1]["tokens_out"]) == ("m", 0)
