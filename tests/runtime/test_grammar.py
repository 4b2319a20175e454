"""A runner that cannot keep to a grammar is never given one."""

import pytest
import trio

from atomr_trio.core import BadRequest, Deployment, ExecuteBatch, Grammar, SamplingParams, TokenChunk, Unsupported
from atomr_trio.runtime import Cluster

from .kit import Scripted, scripted_cluster

GRAMMAR = Grammar("regex", "a+")


class Guided(Scripted):
    """Keeps to expressions, and says nothing but what it is asked to keep to."""

    def __init__(self):
        super().__init__()
        self.checked = []
        self.scripts["keep"] = self.keep

    async def check_grammar(self, grammar):
        self.checked.append(grammar)
        if grammar.kind != "regex":
            raise BadRequest("only expressions", "grammar")

    async def keep(self, batch, out):
        await out.send(TokenChunk(text_delta=batch.sampling.grammar.text))


def batch(prompt="hello", grammar=GRAMMAR):
    return ExecuteBatch(request_id="r", model="m", prompt=prompt, sampling=SamplingParams(grammar=grammar))


async def test_a_runner_that_says_nothing_is_not_asked():
    async with scripted_cluster() as (cluster, (runner,)):
        with pytest.raises(Unsupported) as caught:
            await cluster.directory.prepare(batch())
        assert caught.value.method == "structured output"
        # A request that nobody has prepared, or that came before the runner was there.
        with pytest.raises(Unsupported):
            async with cluster.submit(batch("hang")) as stream:
                await stream.collect()
        assert runner.running == set()


async def test_echo_does_not_pretend():
    async with Cluster.open() as cluster:
        await cluster.deploy(Deployment(name="m", model="m", runtime="echo"))
        with pytest.raises(Unsupported):
            await cluster.execute(batch())
        assert (await cluster.execute(batch(grammar=None))).text == "hello"


async def test_a_runner_that_can_is_asked_before_and_given_the_grammar():
    guided = Guided()

    async def create(_):
        return guided

    async with Cluster.open(create_runner=create) as cluster:
        await cluster.deploy(Deployment(name="m", model="m"))
        assert (await cluster.execute(batch("keep"))).text == "a+"
        assert set(guided.checked) == {GRAMMAR}
        with pytest.raises(BadRequest):
            await cluster.directory.prepare(batch("keep", Grammar("json", "{}")))
        await trio.testing.wait_all_tasks_blocked()
        assert guided.running == set()
