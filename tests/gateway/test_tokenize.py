"""Tokens and text, in the words of two servers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import BadRequest, ContextLengthExceeded, Tokenize, Unsupported
from atomr_trio.gateway import GatewaySettings, ModelInfo, create_app, wire

from .fakes import BEGIN, MODEL, ScriptedBackend
from .harness import capturing_log, serving


class Alone(ScriptedBackend):
    async def models(self):
        return [ModelInfo(id=MODEL, created=0, max_model_len=2048)]


async def ask(path, backend=None, **fields):
    log, _ = capturing_log()
    app = create_app(backend or Alone(), GatewaySettings(access_log=False), log=log)
    async with serving(app) as server, await server.connect() as client:
        answer = await client.request("POST", path, json.dumps(fields).encode())
    return answer.status, json.loads(answer.body)


MESSAGES = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
TOLD = [
    ({"prompt": "hé"}, {"count": 4, "max_model_len": 2048, "tokens": [BEGIN, 104, 195, 169], "token_strs": None}),
    ({"prompt": ""}, {"count": 1, "max_model_len": 2048, "tokens": [BEGIN], "token_strs": None}),
    (
        {"prompt": "é", "add_special_tokens": False, "return_token_strs": True, "model": MODEL},
        {"count": 2, "max_model_len": 2048, "tokens": [195, 169], "token_strs": ["\ufffd", "\ufffd"]},
    ),
    (
        {"messages": MESSAGES, "return_token_strs": True, "tools": [], "unknown": 1},
        {"count": 3, "max_model_len": 2048, "tokens": [BEGIN, 104, 105], "token_strs": ["<s>", "h", "i"]},
    ),
    ({"content": "hi"}, {"tokens": [104, 105]}),
    ({"content": "hi", "add_special": True}, {"tokens": [BEGIN, 104, 105]}),
    (
        {"content": "hé", "with_pieces": True},
        {"tokens": [{"id": 104, "piece": "h"}, {"id": 195, "piece": [195]}, {"id": 169, "piece": [169]}]},
    ),
]


@pytest.mark.parametrize("path", ["/tokenize", "/v1/tokenize"])
@pytest.mark.parametrize(("fields", "told"), TOLD)
async def test_tokenize(path, fields, told):
    assert await ask(path, **fields) == (200, told)


@pytest.mark.parametrize("path", ["/detokenize", "/v1/detokenize"])
async def test_detokenize(path):
    assert await ask(path, tokens=[104, 195, 169]) == (200, {"prompt": "hé", "content": "hé"})
    assert await ask(path, tokens=[195], model=MODEL) == (200, {"prompt": "\ufffd", "content": "\ufffd"})
    assert await ask(path, tokens=[]) == (200, {"prompt": "", "content": ""})


REFUSED = [
    ("/tokenize", {}, 400, "prompt"),
    ("/tokenize", {"prompt": "x", "content": "x"}, 400, "content"),
    ("/tokenize", {"prompt": "x", "messages": MESSAGES}, 400, "messages"),
    ("/tokenize", {"messages": []}, 400, "messages"),
    ("/tokenize", {"content": ["x"]}, 400, "content"),
    ("/tokenize", {"prompt": "x", "model": "nothing"}, 404, "model"),
    ("/tokenize", {"messages": MESSAGES, "tools": [{}]}, 400, "tools[0].type"),
    ("/tokenize", {"messages": MESSAGES, "chat_template": "x"}, 400, "chat_template"),
    ("/tokenize", {"messages": MESSAGES, "continue_final_message": True}, 400, "continue_final_message"),
    ("/detokenize", {}, 400, "tokens"),
    ("/detokenize", {"tokens": [-1]}, 400, "tokens[0]"),
    ("/detokenize", {"tokens": ["x"]}, 400, "tokens[0]"),
    ("/detokenize", {"tokens": [9999]}, 400, "tokens"),
]


@pytest.mark.parametrize(("path", "fields", "status", "param"), REFUSED)
async def test_what_is_refused_is_named(path, fields, status, param):
    told, body = await ask(path, **fields)
    assert (told, body["error"]["param"]) == (status, param)


@pytest.mark.parametrize(("path", "fields"), [("/tokenize", {"prompt": "x"}), ("/detokenize", {"tokens": [1]})])
async def test_with_several_models_one_must_be_named(path, fields):
    status, body = await ask(path, ScriptedBackend(), **fields)
    assert (status, body["error"]["param"]) == (400, "model")


async def test_long_answers_are_the_same():
    text = "é" * 10_000
    _, told = await ask("/tokenize", content=text, with_pieces=True)
    assert len(told["tokens"]) == 20_000
    tokens = [token["id"] for token in told["tokens"]]
    assert await ask("/detokenize", tokens=tokens) == (200, {"prompt": text, "content": text})


async def test_a_runtime_that_knows_no_tokens_says_so():
    for error, code in [(Unsupported("tokenize", "echo"), "unsupported"), (ContextLengthExceeded(2, 1), None)]:
        status, body = await ask("/tokenize", Alone(on_prepare=error), prompt="x")
        assert (status, body["error"]["code"]) == (400, code or "context_length_exceeded")


@given(
    special=st.none() | st.booleans(),
    control=st.none() | st.booleans(),
    begin=st.none() | st.booleans(),
    text=st.text(),
)
def test_the_defaults_are_those_of_the_server_whose_fields_are_used(special, control, begin, text):
    def asked(**fields):
        return wire.token_question(wire.decode_tokenize(json.dumps(fields).encode()), "m")

    plain = asked(prompt=text, add_special_tokens=special)
    assert plain == Tokenize(model="m", text=text, add_special=special is not False)
    theirs = asked(content=text, add_special=special, parse_special=control)
    assert theirs == Tokenize(model="m", text=text, add_special=bool(special), parse_special=control is not False)
    chat = asked(messages=MESSAGES, add_special_tokens=special, add_generation_prompt=begin)
    assert (chat.add_special, chat.rendering.begin, chat.text) == (bool(special), begin is not False, "")
    assert [turn.text for turn in chat.messages] == ["hi"]
    offered = asked(messages=MESSAGES, tools=[{"type": "function", "function": {"name": "f"}}]).tools
    assert [tool.name for tool in offered.tools] == ["f"]


@given(body=st.binary(max_size=40))
def test_any_bytes_are_a_request_or_a_typed_error(body):
    for decode in (wire.decode_tokenize, wire.decode_detokenize, wire.decode_messages, wire.decode_count):
        with pytest.raises(BadRequest):
            decode(body)
