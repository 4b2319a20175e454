"""Tokens that are made for clients who have left: counted for their deployment, whenever they come."""

import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.core import Deployment, ModelRunner, Serving, TokenChunk, TokenUsage
from atomr_trio.runtime import Cluster

from .kit import batch

STEPS = 10


class Ahead(ModelRunner):
    """A token a second; its engine cannot stop at once, and says later what it has made in vain."""

    def __init__(self, ahead, later, made):
        self.ahead, self.later, self.made = ahead, later, made
        self.left = []

    async def execute(self, batch, out):
        try:
            for _ in range(STEPS):
                await trio.sleep(1)
                out.push(self.made)
        except trio.Cancelled:
            out.push(TokenChunk(token_ids=(0,) * self.ahead))
            self.left.append(out)
            raise

    def say(self):
        for out in self.left:
            out.push(TokenChunk(usage=TokenUsage(output_tokens=self.later)))


@settings(max_examples=40)
@given(
    leaving=st.lists(st.none() | st.integers(0, STEPS - 1), min_size=1, max_size=6),
    ahead=st.integers(0, 3),
    later=st.integers(0, 3),
    made=st.sampled_from(
        [
            TokenChunk(token_ids=(7,)),
            TokenChunk(text_delta="x"),
            TokenChunk(token_ids=(7,), text_delta="x", usage=TokenUsage(output_tokens=1)),
        ]
    ),
    _seed=st.random_module(),
)
def test_what_the_engine_makes_for_nobody_is_counted(leaving, ahead, later, made, _seed):
    runner = Ahead(ahead, later, made)

    async def create(_deployment):
        return runner

    async def ask(cluster, number, after):
        async with cluster.submit(batch("x", f"r{number}")) as stream:
            if after is None:
                await stream.collect()
            else:
                # Between two tokens.
                await trio.sleep(after + 0.5)

    async def scenario():
        async with Cluster.open(create_runner=create) as cluster:
            await cluster.deploy(Deployment(name="m", model="m", runtime="ahead", serving=Serving(max_concurrent=8)))
            async with trio.open_nursery() as nursery:
                for number, after in enumerate(leaving):
                    nursery.start_soon(ask, cluster, number, after)
            await trio.testing.wait_all_tasks_blocked()
            runner.say()
            await trio.testing.wait_all_tasks_blocked()
            counted = (await cluster.metrics())["m"]
        left = [after for after in leaving if after is not None]
        assert counted.late_tokens == len(left) * (ahead + later)
        assert counted.usage_cancelled == TokenUsage(output_tokens=sum(left))
        assert counted.usage.output_tokens == sum(left) + STEPS * (len(leaving) - len(left))

    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))
