"""The echo runner, through the whole runtime."""

from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import Deployment, ExecuteBatch, FinishReason, Message, SamplingParams, TokenUsage
from atomr_trio.runners.echo import WORDS, EchoRunner
from atomr_trio.runtime import Cluster


@given(text=st.text(max_size=30), limit=st.none() | st.integers(1, 5), _seed=st.random_module())
async def test_it_says_back_what_was_said_up_to_the_limit(text, limit, _seed):
    async def create(_deployment):
        return EchoRunner()

    async with Cluster.open(create_runner=create) as cluster:
        await cluster.deploy(Deployment(name="echo", model="echo", runtime="echo"))
        tokens = await cluster.execute(
            ExecuteBatch(
                request_id="r",
                model="echo",
                messages=(Message("user", text),),
                sampling=SamplingParams(max_tokens=limit),
            )
        )
    words = WORDS.findall(text)
    assert "".join(words) == text
    assert tokens.text == "".join(words[:limit])
    cut = limit is not None and len(words) > limit
    assert tokens.finish_reason is (FinishReason.LENGTH if cut else FinishReason.STOP)
    assert tokens.usage == TokenUsage(len(words), len(words[:limit]))
