"""Structured output over HTTP with the real model: schemas, choices, expressions, and what is refused at once."""

import json
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor

import jsonschema
import pytest

from .kit import events

CITY = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "country": {"enum": ["France", "Spain"]},
        "rivers": {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 2, "maxItems": 2},
    },
    "required": ["city", "country", "rivers"],
    "additionalProperties": False,
}
NAMED = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}}
QUESTION = "Tell me about the capital of France as JSON."


def answered(reply):
    assert reply.status_code == 200, reply.text
    (choice,) = reply.json()["choices"]
    return choice["message"]["content"] if "message" in choice else choice["text"], choice["finish_reason"]


def refused(reply):
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error"
    return error["param"]


def test_what_is_asked_for_is_what_comes(server):
    text, reason = answered(server.chat(QUESTION, response_format=NAMED, max_tokens=120))
    assert reason == "stop"
    jsonschema.validate(json.loads(text), CITY)
    assert json.loads(text)["country"] == "France"

    cities = ["Paris", "It is Paris.", "The capital of France is Paris."]
    choice = {"structured_outputs": {"choice": cities}}
    assert answered(server.chat("What is the capital of France?", **choice)) == (cities[2], "stop")
    text, reason = answered(server.complete("1, 2, 3,", structured_outputs={"regex": "( [0-9],){3}"}, logprobs=0))
    assert (re.fullmatch("( [0-9],){3}", text) is not None, reason) == (True, "stop")
    grammar = {"structured_outputs": {"grammar": 'start: "<" WORD ">" <|im_end|>?\nWORD: /[a-z]{1,5}/'}}
    assert re.fullmatch("<[a-z]{1,5}>", answered(server.chat("Say a word.", **grammar))[0])

    text, reason = answered(server.chat(QUESTION, response_format=NAMED, max_tokens=5))
    assert (reason, text.startswith("{")) == ("length", True)
    # The model's own words are what they were.
    assert "Paris" in answered(server.chat("What is the capital of France?", max_tokens=20))[0]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "strng"}}}},
         "response_format.json_schema.schema"),
        ({"structured_outputs": {"regex": "(a"}}, "structured_outputs.regex"),
        ({"structured_outputs": {"grammar": "start: nope"}}, "structured_outputs.grammar"),
        ({"structured_outputs": {"json": {"type": "integer", "multipleOf": 999983}}}, "structured_outputs.json"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_kept_to_is_refused_by_its_name(server, fields, param, stream):
    assert refused(server.chat("Hi", stream=stream, max_tokens=3, **fields)) == param


def test_streams_of_many_schemas_at_once(server):
    def ask(number):
        schema = {"type": "object", "properties": {f"n{number}": {"type": "integer", "maximum": 999, "minimum": 0}},
                  "required": [f"n{number}"], "additionalProperties": False}  # fmt: skip
        with server.stream("Say a number.", temperature=1, seed=number, max_tokens=60,
                           structured_outputs={"json": schema}) as response:  # fmt: skip
            received = [event["choices"][0] for event in events(response) if event != "[DONE]"]
        assert received[-1]["finish_reason"] == "stop"
        jsonschema.validate(json.loads("".join(one["delta"].get("content") or "" for one in received)), schema)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))


def test_an_answer_keeps_to_its_schema_through_the_death_of_the_device_process(server):
    ask = {"response_format": NAMED, "max_tokens": 120}
    whole, _ = answered(server.chat(QUESTION, **ask))
    text = ""
    with server.stream(QUESTION, **ask) as response:
        for number, event in enumerate(events(response)):
            if number == 8:
                os.kill(server.device_pid, signal.SIGKILL)
            if event != "[DONE]":
                text += event["choices"][0]["delta"].get("content") or ""
    assert text == whole
