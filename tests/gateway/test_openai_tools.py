"""Tools and reasoning with the official client, sync and async, against a real loopback server."""

import functools
import json

import attrs
import openai
import pytest
import trio

from atomr_trio.core import BadRequest, FinishReason
from atomr_trio.text import ChatTemplate, Dialogue

from .fakes import MODEL, ScriptedBackend, say
from .harness import serving
from .test_openai_client import app_of, client_of

pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(openai|httpx2|httpcore2):ResourceWarning")

ASK = {"role": "user", "content": "How is the weather in Bonn?"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tell the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
TEMPLATE = """{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}\
{% if tools %}<tools>{{ tools | tojson }}{% endif %}<|assistant|>{# <tool_call> #}{# <think> #}"""


@attrs.define
class TalkingBackend(ScriptedBackend):
    """Prepares requests as a model's codec does."""

    dialogue: Dialogue = attrs.field(factory=lambda: Dialogue(ChatTemplate(TEMPLATE)))

    async def prepare(self, batch):
        prepared = await super().prepare(batch)
        prompt = self.dialogue.render(batch)
        return attrs.evolve(prepared, form=self.dialogue.form(prompt, batch))


def call_of(city):
    return f'<tool_call>\n{{"name": "get_weather", "arguments": {{"city": "{city}"}}}}\n</tool_call>'


def portions(text, size=3):
    return [part for at in range(0, len(text), size) for part in (text[at : at + size], 0.0001)]


def fields(**more):
    return {"model": MODEL, "messages": [ASK], "tools": [WEATHER], **more}


async def test_a_call_and_its_result():
    backend = TalkingBackend([say(*portions(call_of("Bonn"))), say("Rain.")])
    async with serving(app_of(backend)) as server, client_of(server) as client:
        answer = await client.chat.completions.create(**fields())
        (choice,) = answer.choices
        (call,) = choice.message.tool_calls
        assert (choice.finish_reason, choice.message.content, call.type) == ("tool_calls", None, "function")
        assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Bonn"})
        result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
        again = await client.chat.completions.create(**fields(messages=[ASK, choice.message, result]))
        assert (again.choices[0].message.content, again.choices[0].finish_reason) == ("Rain.", "stop")
        assert again.choices[0].message.tool_calls is None
    spoken, told = backend.submitted[1].messages[1:]
    assert (spoken.tool_calls[0].id, spoken.tool_calls[0].name) == (call.id, "get_weather")
    assert (told.tool_call_id, told.name, told.text) == (call.id, "get_weather", "rain")


async def test_a_stream_of_text_reasoning_and_calls():
    text = "<think>Bonn, and Rome.</think>\n\nI look.\n" + call_of("Bonn") + "\n" + call_of("Rome")
    backend = TalkingBackend([say(*portions(text)), say(*portions(text))])
    async with serving(app_of(backend)) as server, client_of(server) as client:
        stream = await client.chat.completions.create(**fields(stream=True))
        deltas = [chunk.choices[0] async for chunk in stream]
        whole = await client.chat.completions.create(**fields())
    assert "".join(each.delta.content or "" for each in deltas) == "I look."
    assert "".join(getattr(each.delta, "reasoning_content", None) or "" for each in deltas) == "Bonn, and Rome."
    assert [each.finish_reason for each in deltas] == [None] * (len(deltas) - 1) + ["tool_calls"]
    fragments = [call for each in deltas for call in each.delta.tool_calls or ()]
    assert [call.index for call in fragments] == [0, 0, 1, 1]
    assert [call.function.name for call in fragments if call.id] == ["get_weather"] * 2
    arguments = ["".join(call.function.arguments for call in fragments if call.index == index) for index in (0, 1)]
    assert list(map(json.loads, arguments)) == [{"city": "Bonn"}, {"city": "Rome"}]
    message = whole.choices[0].message
    assert (message.content, message.reasoning_content) == ("I look.", "Bonn, and Rome.")
    assert [json.loads(call.function.arguments) for call in message.tool_calls] == [{"city": "Bonn"}, {"city": "Rome"}]


async def test_the_clients_own_stream_helper():
    backend = TalkingBackend([say(*portions(call_of("Bonn")))])
    async with serving(app_of(backend)) as server, client_of(server) as client:
        async with client.chat.completions.stream(**fields()) as stream:
            events = [event async for event in stream]
        (call,) = (await stream.get_final_completion()).choices[0].message.tool_calls
    chunks = [event.chunk for event in events if event.type == "chunk"]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert json.loads(call.function.arguments) == {"city": "Bonn"}
    assert [event.name for event in events if event.type == "tool_calls.function.arguments.done"] == ["get_weather"]


async def test_several_choices_have_calls_of_their_own():
    backend = TalkingBackend([say(call_of("Bonn")), say("No."), say(call_of("Rome"))])
    async with serving(app_of(backend)) as server, client_of(server) as client:
        answer = await client.chat.completions.create(**fields(n=3))
    assert [choice.finish_reason for choice in answer.choices] == ["tool_calls", "stop", "tool_calls"]
    assert len({call.id for choice in answer.choices for call in choice.message.tool_calls or ()}) == 2


async def test_only_one_call_where_the_client_wants_one():
    backend = TalkingBackend([say(call_of("Bonn"), call_of("Rome"))])
    async with serving(app_of(backend)) as server, client_of(server) as client:
        answer = await client.chat.completions.create(**fields(parallel_tool_calls=False))
    assert [json.loads(call.function.arguments) for call in answer.choices[0].message.tool_calls] == [{"city": "Bonn"}]


async def test_without_tools_the_marks_are_text():
    backend = TalkingBackend([say(call_of("Bonn"))] * 2)
    async with serving(app_of(backend)) as server, client_of(server) as client:
        for more in ({"tools": openai.omit}, {"tool_choice": "none"}):
            answer = await client.chat.completions.create(**{**fields(), **more})
            assert answer.choices[0].message.content == call_of("Bonn")
            assert answer.choices[0].finish_reason == "stop"


async def test_half_a_call_is_text_and_says_why_it_is_half():
    half = call_of("Bonn")[:-20]
    backend = TalkingBackend([say(half, FinishReason.LENGTH), say(half, 0.001, FinishReason.LENGTH)])
    async with serving(app_of(backend)) as server, client_of(server) as client:
        answer = await client.chat.completions.create(**fields())
        stream = await client.chat.completions.create(**fields(stream=True))
        chunks = [chunk.choices[0] async for chunk in stream]
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (half, "length")
    assert "".join(chunk.delta.content or "" for chunk in chunks) == half
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["length"]


async def test_an_error_within_a_call_ends_the_stream_without_it():
    backend = TalkingBackend([say(call_of("Bonn")[:-20], 0.01, BadRequest("no"))])
    async with serving(app_of(backend)) as server, client_of(server) as client:
        stream = await client.chat.completions.create(**fields(stream=True))
        chunks = []
        with pytest.raises(openai.APIError, match="no"):
            async for chunk in stream:
                chunks.append(chunk)  # noqa: PERF401 - what came before the error counts
    assert all(chunk.choices[0].delta.tool_calls is None for chunk in chunks)


async def test_a_long_call_is_no_silence(patient_clock):
    city = [step for _ in range(60) for step in ("Bonn", 1)]
    begin, end = call_of("|").split("|")
    backend = TalkingBackend([say(begin, *city, end)])
    async with serving(app_of(backend, heartbeat=10.0)) as server:
        body = json.dumps(fields(stream=True)).encode()
        async with await server.connect() as connection:
            await connection.start("POST", "/v1/chat/completions", body)
            await connection.finish(body)
            assert (await connection.head()).status == 200
            answer = await connection.answer_body()
    assert 4 <= answer.count(b": ping") <= 7
    assert answer.count(b"tool_calls") == 3


async def test_a_model_that_cannot_call():
    deaf = Dialogue(ChatTemplate(TEMPLATE), "none")
    async with serving(app_of(TalkingBackend(dialogue=deaf))) as server, client_of(server) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(**fields())
    assert caught.value.param == "tools"


async def test_the_sync_client():
    def talk(url):
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            whole = client.chat.completions.create(**fields())
            stream = client.chat.completions.create(**fields(stream=True))
            fragments = [call for chunk in stream for call in chunk.choices[0].delta.tool_calls or ()]
            return whole.choices[0].message.tool_calls[0].function, fragments

    async with serving(app_of(TalkingBackend([say(*portions(call_of("Bonn")))]))) as server:
        called, fragments = await trio.to_thread.run_sync(functools.partial(talk, server.url))
    assert (called.name, json.loads(called.arguments)) == ("get_weather", {"city": "Bonn"})
    assert "".join(call.function.arguments for call in fragments) == called.arguments
