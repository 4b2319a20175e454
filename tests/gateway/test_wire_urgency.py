"""Service tiers and priorities: what reaches the engine, and what the answer says of it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import BadRequest, TokenUsage
from atomr_trio.gateway import wire

from .fakes import MODEL, ScriptedBackend
from .harness import serving
from .test_app import CHAT, app_of, ask, events_of
from .test_wire_requests import chat, plain, refused

USUAL = [None, "auto", "default", "scale"]
TIERS = [*USUAL, "flex", "priority", "fast"]


def response(**fields):
    request = wire.decode_response(json.dumps({"model": "m", "input": "x", **fields}).encode())
    return wire.response_generation(request, "resp_1")


ROUTES = [chat, plain, response]


def urgency(route, **fields):
    return route(**fields).prompts[0].priority


@pytest.mark.parametrize("route", ROUTES)
def test_the_classes_are_three(route):
    assert {urgency(route, service_tier=tier) for tier in USUAL} == {0}
    assert urgency(route, service_tier="priority") == urgency(route, service_tier="fast") < 0
    assert urgency(route, service_tier="flex") > 0


@given(route=st.sampled_from(ROUTES), tier=st.sampled_from(TIERS), moved=st.none() | st.integers(-100, 100))
def test_a_priority_moves_a_request_within_what_the_engine_takes(route, tier, moved):
    got = urgency(route, service_tier=tier, priority=moved)
    assert got == max(-100, min(100, urgency(route, service_tier=tier) + (moved or 0)))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("name", "value"), [("priority", 101), ("priority", -101), ("service_tier", "batch")])
def test_there_are_no_others(route, name, value):
    assert refused(route, **{name: value}).param == name


@given(asked=st.sampled_from(TIERS[1:]), usage=st.booleans())
def test_an_answer_says_which_class_it_got(asked, usage):
    told = "default" if asked in USUAL else "flex" if asked == "flex" else "priority"
    for route, kind in [(chat, wire.ChatShape), (plain, wire.CompletionShape)]:
        options = {"stream": True, "stream_options": {"include_usage": usage}}
        shape = kind.of(route(service_tier=asked, **options), 17)
        stream = shape.end(TokenUsage()).decode()
        assert stream.count(f'"service_tier":"{told}"') == usage
        assert json.loads(shape.whole([], TokenUsage()))["service_tier"] == told
        assert "service_tier" not in json.loads(kind.of(route(), 17).whole([], TokenUsage()))


async def test_a_tier_reaches_the_backend_and_comes_back():
    backend = ScriptedBackend()
    hello = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "service_tier": "fast", "priority": 3}
    async with serving(app_of(backend)) as server:
        whole = await ask(server, "POST", CHAT, json.dumps(hello).encode())
        stream = await ask(server, "POST", CHAT, json.dumps({**hello, "stream": True}).encode())
        begun = {"model": MODEL, "input": "hi", "service_tier": "flex"}
        other = await ask(server, "POST", "/v1/responses", json.dumps(begun).encode())
    assert json.loads(whole.body)["service_tier"] == "priority"
    assert {json.loads(each)["service_tier"] for each in events_of(stream.body)[:-1]} == {"priority"}
    assert json.loads(other.body)["service_tier"] == "flex"
    first, second, third = (batch.priority for batch in backend.submitted)
    assert first == second < 0 < third


def test_decoding_refuses_before_anything_is_translated():
    with pytest.raises(BadRequest):
        wire.decode_chat(b'{"model":"m","messages":[{"role":"user","content":"x"}],"priority":1.5}')
