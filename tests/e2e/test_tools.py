"""Tools over HTTP with the official client, and a model whose template knows nothing of them."""

import json

import openai
import pytest

from .kit import MODEL

QUESTION = {"role": "user", "content": "What is the weather like in Paris?"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def chat(client, *messages, **fields):
    values = {"model": MODEL, "temperature": 0, "max_tokens": 24, **fields}
    return client.chat.completions.create(messages=[QUESTION, *messages], **values)


def test_the_model_is_told_of_the_tools(client):
    without = chat(client)
    told = chat(client, tools=[WEATHER])
    assert told.usage.prompt_tokens > without.usage.prompt_tokens + 50
    untold = chat(client, tools=[WEATHER], tool_choice="none")
    assert untold.usage.prompt_tokens == without.usage.prompt_tokens
    assert untold.choices[0].message.content == without.choices[0].message.content
    assert told.usage.completion_tokens_details.reasoning_tokens == 0
    message = told.choices[0].message
    assert message.content or message.tool_calls


def test_streamed_and_whole_agree(client):
    whole = chat(client, tools=[WEATHER]).choices[0]
    choices = [chunk.choices[0] for chunk in chat(client, tools=[WEATHER], stream=True)]
    assert "".join(choice.delta.content or "" for choice in choices) == (whole.message.content or "")
    assert choices[-1].finish_reason == whole.finish_reason
    fragments = [call for choice in choices for call in choice.delta.tool_calls or ()]
    arguments = "".join(call.function.arguments for call in fragments)
    assert arguments == "".join(call.function.arguments for call in whole.message.tool_calls or ())


def test_a_conversation_with_calls_and_results_is_understood(client):
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    spoken = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "call_1", "content": json.dumps({"sky": "clear", "celsius": 21})}
    told = chat(client, spoken, result, tools=[WEATHER])
    assert told.choices[0].message.content
    assert told.usage.prompt_tokens > chat(client, tools=[WEATHER]).usage.prompt_tokens + 20


def test_an_unknown_function_cannot_be_chosen(client):
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "nobody"}})
    assert caught.value.param == "tool_choice"


ALARM = {
    "type": "function",
    "function": {
        "name": "set_alarm",
        "parameters": {
            "type": "object",
            "properties": {"hour": {"type": "integer", "minimum": 0, "maximum": 23}, "day": {"enum": ["Mon", "Tue"]}},
            "required": ["hour", "day"],
            "additionalProperties": False,
        },
    },
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "set_alarm"}}])
def test_a_model_that_has_to_call_calls(client, choice, stream):
    pytest.importorskip("atomr_trio.grammar")
    fields = {"tools": [WEATHER, ALARM], "tool_choice": choice, "max_tokens": 120, "parallel_tool_calls": False}
    if stream:
        choices = [chunk.choices[0] for chunk in chat(client, stream=True, **fields)]
        reason, calls = choices[-1].finish_reason, [call for each in choices for call in each.delta.tool_calls or ()]
        assert all(not each.delta.content for each in choices)
    else:
        (whole,) = chat(client, **fields).choices
        reason, calls = whole.finish_reason, whole.message.tool_calls
        assert whole.message.content is None
    arguments = json.loads("".join(call.function.arguments for call in calls))
    assert reason == "tool_calls"
    if calls[0].function.name == "set_alarm":
        assert set(arguments) == {"hour", "day"}
        assert arguments["hour"] in range(24)
    else:
        assert choice == "required"
        assert isinstance(arguments["city"], str)
