"""Runners that make calls themselves: every fragment arrives; those that do not are not asked to."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import (
    Deployment,
    ExecuteBatch,
    Grammar,
    Message,
    Role,
    SamplingParams,
    TokenChunk,
    Tool,
    ToolCall,
    ToolOffer,
    Unsupported,
)
from atomr_trio.runtime import Cluster
from atomr_trio.runtime.directory import INLINE_CHARACTERS, _characters
from atomr_trio.runtime.stream import TokenStream

from .kit import Scripted, scripted_cluster

OFFER = ToolOffer(tools=(Tool("f"),), required=True)


def fragments_of(calls):
    for index, (name, pieces) in enumerate(calls):
        begin = {"index": index, "id": f"id{index}", "type": "function", "function": {"name": name, "arguments": ""}}
        yield begin
        yield from ({"index": index, "function": {"arguments": piece}} for piece in pieces)


def assembled(deltas):
    calls = {}
    for delta in deltas:
        call = calls.setdefault(delta["index"], {"id": None, "name": None, "arguments": ""})
        call["id"] = delta.get("id") or call["id"]
        call["name"] = delta["function"].get("name") or call["name"]
        call["arguments"] += delta["function"]["arguments"]
    return [(calls[index]["id"], calls[index]["name"], calls[index]["arguments"]) for index in sorted(calls)]


@given(
    calls=st.lists(st.tuples(st.text("fg", min_size=1), st.lists(st.text(max_size=3), max_size=4)), max_size=3),
    pauses=st.lists(st.booleans()),
    _seed=st.random_module(),
)
async def test_every_fragment_arrives_however_late_the_reader_is(calls, pauses, _seed):
    stream, got, text = TokenStream("r"), [], []

    async def read():
        try:
            while True:
                chunk = await stream.receive()
                text.append(chunk.text_delta)
                got.extend([chunk.tool_call_delta] if chunk.tool_call_delta else [])
        except StopAsyncIteration:
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        pause = iter(pauses)
        for fragment in fragments_of(calls):
            stream.push(TokenChunk(text_delta="x", tool_call_delta=fragment))
            if next(pause, False):
                await trio.testing.wait_all_tasks_blocked()
        stream.finish()
    wanted = [(f"id{index}", name, "".join(pieces)) for index, (name, pieces) in enumerate(calls)]
    assert assembled(got) == assembled(stream.tokens.tool_calls) == wanted
    assert "".join(text) == stream.tokens.text


async def test_a_reader_gets_the_fragments_of_a_call_in_one():
    stream = TokenStream("r")
    for fragment in fragments_of([("f", ["{", "}"]), ("g", ["{}"])]):
        stream.push(TokenChunk(tool_call_delta=fragment))
    stream.finish()
    first, second = await stream.receive(), await stream.receive()
    assert first.tool_call_delta["function"] == {"name": "f", "arguments": "{}"}
    assert second.tool_call_delta["function"] == {"name": "g", "arguments": "{}"}
    assert (first.finish_reason, second.finish_reason) == (None, "stop")


def batch(tools=OFFER, grammar=None):
    sampling = SamplingParams(grammar=grammar)
    return ExecuteBatch(request_id="r", model="m", prompt="hello", tools=tools, sampling=sampling)


async def test_nobody_is_made_to_call_who_cannot():
    async with scripted_cluster() as (cluster, (runner,)):
        with pytest.raises(Unsupported, match="required"):
            await cluster.execute(batch())
        assert runner.running == set()
        # Nobody has to call where it is the model's choice.
        assert (await cluster.execute(batch(ToolOffer(tools=OFFER.tools)))).text == "hello world"


async def test_who_can_is_asked():
    class Calling(Scripted):
        calls_tools = True

        async def hello(self, batch, out):
            for fragment in fragments_of([(batch.tools.tools[0].name, ["{}"])]):
                await out.send(TokenChunk(tool_call_delta=fragment))

    async def create(_deployment):
        return Calling()

    async with Cluster.open(create_runner=create) as cluster:
        await cluster.deploy(Deployment(name="m", model="m"))
        assert assembled((await cluster.execute(batch())).tool_calls) == [("id0", "f", "{}")]


def test_a_grammar_is_as_good():
    from atomr_trio.runtime.context import _check_tools

    _check_tools(Scripted(), batch(grammar=Grammar("lark", "start: /x/")))
    _check_tools(Scripted(), batch(tools=None))
    with pytest.raises(Unsupported):
        _check_tools(Scripted(), batch())


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": ToolOffer(tools=[Tool("f", "x" * 9000)])},
        {"tools": ToolOffer(tools=[Tool("f", "", {"enum": ["x" * 9000]})])},
        {"messages": [Message(Role.ASSISTANT, "", tool_calls=[ToolCall("1", "f", '{"a": "%s"}' % ("x" * 9000))])]},
    ],
)
def test_what_is_long_for_its_tools_is_prepared_in_a_thread(fields):
    assert _characters(ExecuteBatch(request_id="r", model="m", **fields)) > INLINE_CHARACTERS
