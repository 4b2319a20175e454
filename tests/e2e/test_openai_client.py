"""The official client against the served model: synchronous, and asynchronous under trio."""

import openai
import pytest
import trio

from .kit import MODEL

# The client leaves its own generators to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(openai|httpx2|httpcore2):ResourceWarning")

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "The capital of France is Paris."


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture
def make_async_client(server):
    return lambda: openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)


def test_models(client):
    assert [model.id for model in client.models.list()] == [MODEL]
    model = client.models.retrieve(MODEL)
    assert (model.id, model.object, model.max_model_len) == (MODEL, "model", 8192)
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-4o")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


def test_chat(client):
    reply = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0)
    assert reply.choices[0].message.content == ANSWER
    assert reply.choices[0].finish_reason == "stop"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (37, 8)
    assert reply._request_id


def test_chat_stream(client):
    stream = client.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == ANSWER
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert (chunks[-1].choices, chunks[-1].usage.total_tokens) == ([], 45)
    assert len({chunk.id for chunk in chunks}) == 1


def test_completion_and_its_stream(client):
    fields = {"model": MODEL, "prompt": "1, 2, 3, 4, 5,", "temperature": 0, "max_tokens": 8}
    reply = client.completions.create(**fields)
    assert reply.choices[0].text == " 6, 7, 8"
    assert reply.choices[0].finish_reason == "length"
    streamed = "".join(chunk.choices[0].text for chunk in client.completions.create(**fields, stream=True))
    assert streamed == reply.choices[0].text


def test_stop_strings_end_the_answer_and_are_not_in_it(client):
    reply = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, stop=[" Par", "zzz"])
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("The capital of France is", "stop")


def test_several_choices_with_a_seed_differ_from_each_other_and_repeat(client):
    def ask():
        reply = client.chat.completions.create(
            model=MODEL, messages=QUESTION, n=3, seed=7, temperature=1.5, max_tokens=24
        )
        return [choice.message.content for choice in sorted(reply.choices, key=lambda choice: choice.index)]

    first = ask()
    assert len(set(first)) > 1
    assert ask() == first


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"temperature": 3}, "temperature", None),
        ({"top_p": 1.5}, "top_p", None),
        ({"max_tokens": 0}, "max_tokens", None),
        ({"messages": []}, "messages", None),
        ({"stream_options": {"include_usage": True}}, "stream_options", None),
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, "messages", "context_length_exceeded"),
    ],
)
def test_bad_input_is_refused_with_the_field_and_touches_nothing(client, fields, param, code):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{"model": MODEL, "messages": QUESTION, **fields})
    assert (caught.value.param, caught.value.code) == (param, code)
    assert caught.value.request_id
    assert client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, max_tokens=1)


async def test_async_client_under_trio(make_async_client):
    async with make_async_client() as client:
        assert [model.id async for model in client.models.list()] == [MODEL]
        texts = []

        async def ask():
            stream = await client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, stream=True)
            texts.append("".join([chunk.choices[0].delta.content or "" async for chunk in stream]))

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(ask)
        assert texts == [ANSWER] * 4
        reply = await client.completions.create(model=MODEL, prompt="Water boils at", temperature=0, max_tokens=5)
        assert reply.choices[0].text.startswith(" 100")
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="nope", messages=QUESTION)
