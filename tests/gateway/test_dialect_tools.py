"""Tools and reasoning through messages and responses, with the official clients."""

import gc
import json

import pytest

from atomr_trio.core import Role

from .fakes import MODEL, say
from .harness import serving
from .test_anthropic_client import client_of as anthropic_of
from .test_openai_client import app_of
from .test_openai_client import client_of as openai_of
from .test_openai_tools import TalkingBackend, call_of, portions

pytestmark = pytest.mark.filterwarnings("ignore:Async generator '(anthropic|openai|httpx2|httpcore2):ResourceWarning")

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TEXT = "<think>Bonn, and Rome.</think>\n\nI look.\n" + call_of("Bonn") + "\n" + call_of("Rome")
QUESTION = {"role": "user", "content": "How is the weather?"}
MESSAGE = {
    "model": MODEL,
    "max_tokens": 99,
    "tools": [{"name": "get_weather", "description": "Tell the weather.", "input_schema": SCHEMA}],
}
RESPONSE = {
    "model": MODEL,
    "tools": [{"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": False}],
}


@pytest.fixture(autouse=True, scope="module")
def collect_what_the_client_left():
    yield
    gc.collect()


def backend_of():
    return TalkingBackend([say(*portions(TEXT)), say(*portions(TEXT)), say("Rain.")])


def check_conversation(backend):
    """The third request has the calls of the first answer and their results, as the model shall see them."""
    asked, spoken, *results = backend.submitted[2].messages
    assert (asked.role, spoken.role, spoken.reasoning.strip()) == (Role.USER, Role.ASSISTANT, "Bonn, and Rome.")
    assert [json.loads(call.arguments) for call in spoken.tool_calls] == [{"city": "Bonn"}, {"city": "Rome"}]
    assert [(turn.role, turn.tool_call_id, turn.name, turn.text) for turn in results] == [
        (Role.TOOL, call.id, "get_weather", "rain") for call in spoken.tool_calls
    ]
    assert backend.submitted[0].tools.tools[0].parameters == SCHEMA


async def test_messages():
    backend = backend_of()
    async with serving(app_of(backend)) as server, anthropic_of(server) as client:
        whole = await client.messages.create(**MESSAGE, messages=[QUESTION])
        async with client.messages.stream(**MESSAGE, messages=[QUESTION]) as stream:
            streamed = await stream.get_final_message()
        said = {"role": "assistant", "content": whole.content}
        called = [block for block in whole.content if block.type == "tool_use"]
        results = [{"type": "tool_result", "tool_use_id": block.id, "content": "rain"} for block in called]
        again = await client.messages.create(**MESSAGE, messages=[QUESTION, said, {"role": "user", "content": results}])
    assert [block.type for block in whole.content] == ["thinking", "text", "tool_use", "tool_use"]
    assert [(block.name, block.input) for block in called] == [
        ("get_weather", {"city": "Bonn"}), ("get_weather", {"city": "Rome"}),
    ]  # fmt: skip
    assert whole.stop_reason == streamed.stop_reason == "tool_use"
    assert [block.model_dump(exclude={"id"}) for block in streamed.content] == [
        block.model_dump(exclude={"id"}) for block in whole.content
    ]
    assert (again.content[0].text, again.stop_reason) == ("Rain.", "end_turn")
    check_conversation(backend)


async def test_responses():
    backend = backend_of()
    async with serving(app_of(backend)) as server, openai_of(server) as client:
        whole = await client.responses.create(**RESPONSE, input=[QUESTION])
        async with client.responses.stream(**RESPONSE, input=[QUESTION]) as stream:
            async for _ in stream:
                pass
            streamed = await stream.get_final_response()
        called = [item for item in whole.output if item.type == "function_call"]
        results = [{"type": "function_call_output", "call_id": item.call_id, "output": "rain"} for item in called]
        given = [QUESTION, *(item.to_dict() for item in whole.output), *results]
        again = await client.responses.create(**RESPONSE, input=given)
    kinds = ["reasoning", "message", "function_call", "function_call"]
    assert [item.type for item in whole.output] == [item.type for item in streamed.output] == kinds
    assert [json.loads(item.arguments) for item in called] == [{"city": "Bonn"}, {"city": "Rome"}]
    assert [item.arguments for item in streamed.output[2:]] == [item.arguments for item in called]
    assert whole.output_text == streamed.output_text
    assert (again.output_text, again.status) == ("Rain.", "completed")
    check_conversation(backend)
