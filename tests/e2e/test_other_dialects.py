"""The official clients on the routes beside chat and completions: messages, responses, tokens."""

import anthropic
import httpx2
import openai
import pytest
import trio

from .kit import MODEL

# The clients leave their own generators to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(anthropic|openai|httpx2|httpcore2):ResourceWarning")

TEXT = "What is the capital of France?"
TURNS = [{"role": "user", "content": TEXT}]
ANSWER = "The capital of France is Paris."
PROMPT_TOKENS = 37
# The client has no name for it any more, and the API still has.
GREEDY = {"extra_body": {"temperature": 0}}
MESSAGE = {"model": MODEL, "max_tokens": 32, "messages": TURNS, **GREEDY}
RESPONSE = {"model": MODEL, "input": TEXT, "temperature": 0}


def test_messages(server):
    with anthropic.Anthropic(base_url=server.url, api_key="unused", max_retries=0) as client:
        whole = client.messages.create(**MESSAGE)
        assert (whole.content[0].text, whole.stop_reason) == (ANSWER, "end_turn")
        usage = whole.usage
        assert usage.input_tokens + usage.cache_read_input_tokens == PROMPT_TOKENS
        with client.messages.stream(**MESSAGE, stop_sequences=["zzz", " Paris"]) as stream:
            assert "".join(stream.text_stream) == "The capital of France is"
            assert stream.get_final_message().stop_sequence == " Paris"
        short = client.messages.create(**{**MESSAGE, "max_tokens": 3})
        assert (short.content[0].text, short.stop_reason) == ("The capital of", "max_tokens")
        assert client.messages.count_tokens(model=MODEL, messages=TURNS).input_tokens == PROMPT_TOKENS
        tools = [{"name": "f", "description": "Do it.", "input_schema": {"type": "object", "properties": {}}}]
        told = client.messages.count_tokens(model=MODEL, messages=TURNS, tools=tools).input_tokens
        assert told > PROMPT_TOKENS + 20
        called = client.messages.create(**{**MESSAGE, "max_tokens": 8}, tools=tools)
        assert called.usage.input_tokens + called.usage.cache_read_input_tokens == told
        with pytest.raises(anthropic.NotFoundError) as caught:
            client.messages.create(**{**MESSAGE, "model": "claude"})
        assert caught.value.body["error"]["type"] == "not_found_error"


async def test_messages_under_trio(server):
    texts = []
    async with anthropic.AsyncAnthropic(base_url=server.url, api_key="unused", max_retries=0) as client:

        async def ask():
            async with client.messages.stream(**MESSAGE) as stream:
                texts.append("".join([text async for text in stream.text_stream]))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
        assert (await client.messages.create(**MESSAGE)).content[0].text == ANSWER
    assert texts == [ANSWER] * 3


def test_responses(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        whole = client.responses.create(**RESPONSE)
        assert (whole.output_text, whole.status) == (ANSWER, "completed")
        assert (whole.usage.input_tokens, whole.usage.output_tokens) == (PROMPT_TOKENS, 8)
        events = list(client.responses.create(**RESPONSE, stream=True, max_output_tokens=3))
        assert "".join(event.delta for event in events if event.type.endswith("text.delta")) == "The capital of"
        assert events[-1].response.incomplete_details.reason == "max_output_tokens"
        assert client.responses.input_tokens.count(model=MODEL, input=TEXT).input_tokens == PROMPT_TOKENS


async def test_responses_under_trio(server):
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        async with client.responses.stream(**RESPONSE) as stream:
            async for _ in stream:
                pass
            assert (await stream.get_final_response()).output_text == ANSWER
        assert (await client.responses.create(**RESPONSE)).output_text == ANSWER


def test_tokens(server):
    with httpx2.Client(base_url=server.url) as http:
        told = http.post("/tokenize", json={"messages": TURNS, "return_token_strs": True}).json()
        assert (told["count"], told["max_model_len"]) == (PROMPT_TOKENS, 8192)
        assert told["token_strs"][-4:] == ["<|im_start|>", "ass", "istant", "\n"]
        tokens = http.post("/v1/tokenize", json={"content": "hé llo 日本"}).json()["tokens"]
        text = http.post("/detokenize", json={"tokens": tokens}).json()
        assert text == {"prompt": "hé llo 日本", "content": "hé llo 日本"}
        assert http.post("/detokenize", json={"tokens": [10**6]}).status_code == 400
