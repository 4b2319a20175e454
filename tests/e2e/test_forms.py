"""Answers of a form in the other dialects, and answers that the client has begun, with the official clients."""

import json

import anthropic
import jsonschema
import openai
import pytest

from .kit import MODEL

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "country": {"enum": ["France", "Spain"]}},
    "required": ["city", "country"],
    "additionalProperties": False,
}
QUESTION = "Tell me about the capital of France as JSON."
GREEDY = {"extra_body": {"temperature": 0}}


@pytest.fixture(scope="module")
def theirs(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def other(server):
    with anthropic.Anthropic(base_url=server.url, api_key="unused", max_retries=0) as client:
        yield client


def check(text):
    jsonschema.validate(json.loads(text), CITY)
    assert json.loads(text)["country"] == "France"


def test_a_response(theirs):
    form = {"type": "json_schema", "name": "city", "schema": CITY, "strict": True}
    asked = {"model": MODEL, "input": QUESTION, "temperature": 0, "text": {"format": form}, "max_output_tokens": 100}
    whole = theirs.responses.create(**asked)
    check(whole.output_text)
    assert whole.text.format.schema_ == CITY
    with theirs.responses.stream(**asked) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
    assert text == whole.output_text
    with pytest.raises(openai.BadRequestError) as caught:
        theirs.responses.create(**{**asked, "text": {"format": {**form, "schema": {"type": "strng"}}}})
    assert caught.value.param == "text.format.schema"


def test_a_message(other):
    form = {"format": {"type": "json_schema", "schema": CITY}}
    turns = [{"role": "user", "content": QUESTION}]
    asked = {"model": MODEL, "max_tokens": 100, "messages": turns, "output_config": form, **GREEDY}
    check(other.messages.create(**asked).content[0].text)
    with other.messages.stream(**asked) as stream:
        check("".join(stream.text_stream))


def test_a_completion(server):
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
    reply = server.complete("The capital of France, as JSON: ", response_format=form, max_tokens=100).json()
    check(reply["choices"][0]["text"])


def test_what_the_client_has_begun_is_gone_on_with(theirs, other):
    turns = [
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "The capital of France is"},
    ]
    extra = {"continue_final_message": True}
    chat = theirs.chat.completions.create(model=MODEL, messages=turns, temperature=0, max_tokens=20, extra_body=extra)
    assert chat.choices[0].message.content == " Paris."
    message = other.messages.create(model=MODEL, max_tokens=20, messages=turns, **GREEDY)
    assert message.content[0].text == " Paris."
    counted = other.messages.count_tokens(model=MODEL, messages=turns).input_tokens
    assert counted == chat.usage.prompt_tokens
    bare = theirs.chat.completions.create(model=MODEL, messages=turns, temperature=0, max_tokens=1)
    # Otherwise its turn would have been ended, and another one begun.
    assert bare.usage.prompt_tokens > counted
