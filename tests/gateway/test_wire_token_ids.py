"""The ids of tokens, and what is known of those of the prompt."""

import json
from itertools import pairwise

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import FinishReason, TokenChunk, TokenLogprob, Tokens, TokenUsage
from atomr_trio.gateway import wire

from .fakes import MODEL, PROMPT_IDS, ScriptedBackend
from .harness import serving
from .test_app import app_of, ask, events_of
from .test_wire_requests import chat, plain, refused
from .test_wire_shapes import answer_of, parse

SHAPES = [(chat, wire.ChatShape), (plain, wire.CompletionShape)]


@st.composite
def answers(draw):
    """The chunks of one answer: ids and text, which may come later than its ids."""
    ids = draw(st.lists(st.integers(0, 9), max_size=6))
    cuts = sorted(draw(st.lists(st.integers(0, len(ids)), max_size=3)))
    portions = [tuple(ids[start:end]) for start, end in pairwise([0, *cuts, len(ids)])]
    texts = [draw(st.text("ab", max_size=2)) for _ in portions]
    *chunks, last = [TokenChunk(text_delta=t, token_ids=i) for t, i in zip(texts, portions, strict=True)]
    return ids, [*chunks, evolve(last, finish_reason=FinishReason.STOP)]


def shape_of(route, kind, **fields):
    generation = route(**fields)
    shape = kind.of(generation, 17)
    shape.submitted(wire.expand([evolve(batch, prompt_ids=PROMPT_IDS) for batch in generation.prompts], generation.n))
    return shape


def choices_of(shape, chunks):
    return parse(b"".join(shape.chunk(0, chunk) for chunk in chunks))


@given(made=answers(), which=st.sampled_from(SHAPES))
def test_streamed_or_whole_no_id_is_lost(made, which):
    ids, chunks = made
    wanted = {"return_token_ids": True}
    events = choices_of(shape_of(*which, **wanted, stream=True), chunks)
    told = [each["choices"][0].get("token_ids", []) for each in events]
    assert [id for portion in told for id in portion] == ids
    # The prompt's come once, before the first of the answer's.
    asked = [each.get("prompt_token_ids") or each["choices"][0].get("prompt_token_ids") for each in events]
    assert asked == [list(PROMPT_IDS)] + [None] * (len(events) - 1)
    whole = json.loads(shape_of(*which, **wanted).whole([answer_of(chunks)], TokenUsage()))
    (choice,) = whole["choices"]
    assert choice["token_ids"] == ids
    assert (whole.get("prompt_token_ids") or choice["prompt_token_ids"]) == list(PROMPT_IDS)


@given(made=answers(), which=st.sampled_from(SHAPES))
def test_who_does_not_ask_is_told_nothing(made, which):
    _, chunks = made
    events = choices_of(shape_of(*which, stream=True), chunks)
    whole = json.loads(shape_of(*which).whole([answer_of(chunks)], TokenUsage()))
    assert not [key for each in [*events, whole] for key in ("token_ids", "prompt_logprobs") if key in json.dumps(each)]


scores = st.floats(-50, 0)
tops = st.lists(st.tuples(st.integers(0, 9), scores), max_size=5, unique_by=lambda pair: pair[0])
places = st.lists(st.tuples(st.integers(0, 9), scores, tops), min_size=1, max_size=6)


def detail(id, logprob, top=()):
    return TokenLogprob(f"t{id}", b"t", logprob, tuple(detail(*each) for each in top), id)


@given(places=places, asked=st.integers(0, 5), which=st.sampled_from(SHAPES))
def test_prompt_log_probabilities(places, asked, which):
    answer = Tokens(prompt_details=tuple(detail(*place) for place in places), finish_reason=FinishReason.STOP)
    whole = json.loads(shape_of(*which, prompt_logprobs=asked).whole([answer], TokenUsage()))
    first, *rest = whole.get("prompt_logprobs") or whole["choices"][0]["prompt_logprobs"]
    assert first is None
    for told, (id, logprob, top) in zip(rest, places[1:], strict=True):
        best = {str(other): at for at, (other, _) in enumerate(top[:asked], 1)}
        assert set(told) == {str(id), *best}
        assert next(iter(told)) == str(id)
        assert told[str(id)]["rank"] == best.get(str(id))
        assert {key: one["rank"] for key, one in told.items() if key != str(id)} == {
            key: rank for key, rank in best.items() if key != str(id)
        }
        assert told[str(id)]["decoded_token"] == f"t{id}"
        assert told[str(id)]["logprob"] in {logprob, *(score for other, score in top if other == id)}


@pytest.mark.parametrize("route", [chat, plain])
def test_prompt_log_probabilities_reach_the_engine_and_do_not_stream(route):
    for asked in (0, 5):
        sampling = route(prompt_logprobs=asked).prompts[0].sampling
        assert (sampling.prompt_logprobs, sampling.prompt_top_logprobs, sampling.logprobs) == (True, asked, False)
    assert not route().prompts[0].sampling.prompt_logprobs
    assert refused(route, prompt_logprobs=0, stream=True).param == "prompt_logprobs"
    for wrong in (-1, 21, True):
        assert refused(route, prompt_logprobs=wrong).param == "prompt_logprobs"


def test_a_runner_that_does_not_know_says_null():
    for which in SHAPES:
        whole = json.loads(shape_of(*which, prompt_logprobs=1).whole([Tokens()], TokenUsage()))
        assert whole.get("prompt_logprobs", whole["choices"][0].get("prompt_logprobs")) is None


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/completions", {"prompt": "hi", "n": 2}),
    ],
)
@pytest.mark.parametrize("inline", [0, 1024])
async def test_over_http(path, asked, inline, monkeypatch):
    monkeypatch.setattr("atomr_trio.gateway.routes._generate.INLINE_TOKENS", inline)
    body = {"model": MODEL, "return_token_ids": True, **asked}
    async with serving(app_of(ScriptedBackend())) as server:
        whole = json.loads((await ask(server, "POST", path, json.dumps({**body, "prompt_logprobs": 1}).encode())).body)
        stream = events_of((await ask(server, "POST", path, json.dumps({**body, "stream": True}).encode())).body)
    for choice in whole["choices"]:
        assert choice["token_ids"]
    told = whole.get("prompt_logprobs") or whole["choices"][-1]["prompt_logprobs"]
    assert [None if place is None else list(place) for place in told] == [None, ["2", "0"], ["3", "0"]]
    assert sum('"prompt_token_ids":[1,2,3]' in each for each in stream) == asked.get("n", 1)
