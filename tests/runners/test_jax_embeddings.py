"""Embeddings from a real device process: the reference's numbers, also when the process dies on the way."""

import numpy as np
import pytest
import trio

from atomr_trio.core import ContextLengthExceeded, Deployment, ExecuteBatch, FinishReason, Serving
from atomr_trio.runners.jax_local import JaxLocalRunner
from atomr_trio.runtime import Cluster
from tests.checkpoints import config_of, random_tensors, write_folder, write_tokenizer
from tests.engine.reference_decoder import reference_hidden

PROMPTS = [tuple((37 * at + 11 * number) % 256 for at in range(7 * number + 1)) for number in range(10)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    config = config_of("qwen3")
    tensors = random_tensors(config)
    folder = write_folder(tmp_path_factory.mktemp("models") / "tiny", config, tensors)
    return write_tokenizer(folder), config, tensors


def expected(made, ids, pooling):
    hidden = reference_hidden(made[1], made[2], ids)
    pooled = hidden[-1] if pooling == "last" else hidden.mean(axis=0)
    return pooled / np.linalg.norm(pooled)


def deployment(path, **config):
    return Deployment(
        name="m",
        model=str(path),
        serving=Serving(max_concurrent=4),
        runtime_config={"dtype": "float32", "spare": "none", **config},
        max_restarts=5,
    )


def batch(prompt, number=0):
    return ExecuteBatch(request_id=f"r{number}", model="m", prompt=prompt, embed=True)


async def embed_all(cluster, prompts):
    found = {}

    async def embed(number):
        found[number] = await cluster.execute(batch(prompts[number], number))

    async with trio.open_nursery() as nursery:
        for number in range(len(prompts)):
            nursery.start_soon(embed, number)
    return [found[number] for number in range(len(prompts))]


@pytest.mark.parametrize("pooling", ["last", "mean"])
async def test_each_is_that_of_the_reference_though_the_process_dies(made, pooling):
    runners = []

    async def create(asked):
        runners.append(await trio.to_thread.run_sync(JaxLocalRunner.from_deployment, asked))
        return runners[-1]

    # At its second step each of the first two processes is killed.
    faults = {"seed": 1, "kinds": ["kill"], "times": 2, "every": 2}
    async with Cluster.open(create_runner=create) as cluster:
        await cluster.deploy(deployment(made[0], pooling=pooling, faults=faults))
        answers = await embed_all(cluster, PROMPTS)
        with pytest.raises(ContextLengthExceeded) as caught:
            await cluster.execute(batch((1,) * 65))
    assert runners[0].sessions == 3
    assert (caught.value.tokens, caught.value.max_tokens) == (65, 64)
    for ids, answer in zip(PROMPTS, answers, strict=True):
        np.testing.assert_allclose(answer.embedding.values, expected(made, ids, pooling), atol=1e-4)
        assert (answer.finish_reason, answer.text, answer.token_ids) == (FinishReason.STOP, "", [])
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (len(ids), 0)


async def test_a_text_is_read_as_any_other_prompt(made):
    async with Cluster.open() as cluster:
        await cluster.deploy(deployment(made[0], warm_embeddings=True))
        answer = await cluster.execute(batch("hello"))
        again = await cluster.execute(batch("hello"))
    # Its begin, "hel", "l" and "o".
    assert answer.usage.input_tokens == 4
    assert answer.embedding == again.embedding
