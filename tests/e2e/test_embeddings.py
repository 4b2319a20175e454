"""`POST /v1/embeddings` of a served model, by the official client."""

import numpy as np
import openai
import pytest
import trio

from tests.checkpoints import config_of, random_tensors, write_folder, write_tokenizer
from tests.engine.reference_decoder import reference_hidden

from .kit import MODEL, served

# The client leaves its inner generators to the garbage collector, which Trio points out.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(openai|httpx2|httpcore2):ResourceWarning")

IDS = [[5], [7, 9, 250, 31], [11, 12] * 32]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    config = config_of("qwen3")
    tensors = random_tensors(config)
    path = write_folder(tmp_path_factory.mktemp("models") / "tiny", config, tensors)
    return write_tokenizer(path), config, tensors


@pytest.fixture(scope="module")
def tiny(made):
    options = "--dtype", "float32", "--max-concurrent", "2", "--pooling", "mean", "--warm-embeddings"
    with served(str(made[0]), *options) as running:
        yield running


def unit(vector):
    return vector / np.linalg.norm(vector)


def test_the_sync_client_gets_the_numbers_of_the_reference(tiny, made):
    wanted = [unit(reference_hidden(made[1], made[2], ids).mean(axis=0)) for ids in IDS]
    with openai.OpenAI(base_url=f"{tiny.url}/v1", api_key="none", max_retries=0) as client:
        answer = client.embeddings.create(model="tiny", input=IDS)
        short = client.embeddings.create(model="tiny", input=IDS, dimensions=8, encoding_format="float")
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model="tiny", input=[[1] * 65])
    np.testing.assert_allclose([found.embedding for found in answer.data], wanted, atol=1e-4)
    np.testing.assert_allclose(
        [found.embedding for found in short.data], [unit(vector[:8]) for vector in wanted], atol=1e-4
    )
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 69
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input")


async def test_the_async_client_gets_the_same(tiny):
    async with openai.AsyncOpenAI(base_url=f"{tiny.url}/v1", api_key="none", max_retries=0) as client:
        alone = [(await client.embeddings.create(model="tiny", input=ids)).data[0].embedding for ids in IDS]
        together = await client.embeddings.create(model="tiny", input=IDS)
    np.testing.assert_allclose([found.embedding for found in together.data], alone, atol=1e-5)
    await trio.lowlevel.checkpoint()


TEXTS = ["A cat sleeps on the sofa.", "A cat naps on the couch.", "Interest rates rose by two percent."]


async def test_a_real_model_tells_texts_apart(server):
    url = f"{server.url}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        coded = client.embeddings.create(model=MODEL, input=TEXTS).data
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        floats = (await client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")).data
    vectors = np.asarray([found.embedding for found in floats])
    np.testing.assert_allclose([found.embedding for found in coded], vectors, atol=1e-5)
    assert vectors.shape == (3, 576)
    first, second, third = vectors
    assert first @ second > max(first @ third, second @ third)
    await trio.lowlevel.checkpoint()
