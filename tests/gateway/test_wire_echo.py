"""Completions that begin with their prompt, that are nothing but it, and that are the best of several."""

import json
import math
from itertools import pairwise

import pytest
from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st

from atomr_trio.core import ExecuteBatch, FinishReason, SamplingParams, TokenChunk, TokenLogprob, Tokens, TokenUsage
from atomr_trio.gateway import wire
from atomr_trio.gateway.wire._logprobs import TextPlaces

from .fakes import MODEL, ScriptedBackend, say
from .harness import serving
from .test_app import app_of, ask, events_of
from .test_wire_requests import plain, refused
from .test_wire_shapes import answer_of, parse, streamed

PLAIN = "/v1/completions"
NAMES = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


def detail(text, logprob=-1.0, top=()):
    return TokenLogprob(text.decode(errors="replace"), text, logprob, top, 1)


def pieces_of(text, cuts):
    """The text in tokens, which may hold parts of characters."""
    data = text.encode()
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts} - {0, len(data)}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


prompts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
cuts = st.lists(st.integers(0, 99), max_size=6)


def shape_of(texts, **fields):
    generation = plain(prompt=texts, echo=True, **fields)
    shape = wire.CompletionShape.of(generation, 17)
    shape.echo = wire.Echo(texts, generation.n, generation.alone)
    shape.submitted([batch for batch in generation.prompts for _ in range(generation.n)])
    return shape


@given(prompt=prompts, cuts=cuts, said=st.lists(st.sampled_from(["a", " b", "cd"]), max_size=4), top=st.integers(0, 3))
def test_text_and_log_probabilities_go_on_from_those_of_the_prompt(prompt, cuts, said, top):
    others = tuple(detail(bytes([letter]), -2.0) for letter in b"xyz")
    asked = tuple(detail(piece, -0.5, others) for piece in pieces_of(prompt, cuts))
    told = tuple(detail(text.encode(), -0.25, others[:top]) for text in said)
    chunks = [TokenChunk(text_delta=text, details=(each,)) for text, each in zip(said, told, strict=True)]
    chunks = [*chunks, TokenChunk(finish_reason=FinishReason.STOP)]
    chunks[0] = evolve(chunks[0], prompt_details=asked)
    (whole,) = json.loads(shape_of([prompt], logprobs=top).whole([answer_of(chunks)], TokenUsage()))["choices"]
    shape = shape_of([prompt], logprobs=top, stream=True)
    events = parse(b"".join(shape.chunk(0, chunk) for chunk in chunks))
    parts = [each["choices"][0] for each in events]
    assert whole["text"] == "".join(part["text"] for part in parts) == prompt + "".join(said)
    got = whole["logprobs"]
    known = [part["logprobs"] for part in parts if part["logprobs"]]
    assert got == {name: [one for part in known for one in part[name]] for name in NAMES}
    assert {len(got[name]) for name in NAMES} == {len(asked) + len(told)}
    assert got["token_logprobs"] == [None, *[-0.5] * (len(asked) - 1), *[-0.25] * len(told)]
    assert got["top_logprobs"][0] is None
    assert all(len(best) <= top + 1 for best in got["top_logprobs"][1:])
    assert got["text_offset"] == sorted(got["text_offset"])
    for label, offset in zip(got["tokens"], got["text_offset"], strict=True):
        assert label.startswith("bytes:") or whole["text"][offset:].startswith(label)
    assert got["text_offset"][len(asked) :] == [len(prompt) + len("".join(said[:at])) for at in range(len(said))]


@pytest.mark.parametrize(
    ("text", "tokens", "offsets"),
    [
        # A token that was put in front has no place in the text, one that is named there has.
        ("ab", [(None, "<s>"), (b"a", "a"), (b"b", "b")], [0, 0, 1]),
        ("<s>a", [(None, "<s>"), (b"a", "a")], [0, 3]),
        # A tokenizer may put a blank in front.
        ("a b", [(b" a", " a"), (b" b", " b")], [0, 1]),
        (" a", [(b" a", " a")], [0]),
        ("\u20ac!", [(b"\xe2\x82", "?"), (b"\xac", "?"), (b"!", "!")], [0, 0, 1]),
    ],
)
def test_the_places_of_a_prompts_tokens(text, tokens, offsets):
    places = TextPlaces()
    details = [TokenLogprob(name, spelled, -1.0) for spelled, name in tokens]
    assert places.take_prompt(text, details, 0).text_offset == offsets
    assert places.take([detail(b"more")]).text_offset == [len(text)]


@given(prompt=prompts, said=st.sampled_from(["a", "\u20ac"]))
def test_what_follows_a_prompt_of_unknown_tokens_has_its_place_behind_it(prompt, said):
    answer = answer_of([TokenChunk(text_delta=said, details=(detail(said.encode()),))])
    (choice,) = json.loads(shape_of([prompt], logprobs=0).whole([answer], TokenUsage()))["choices"]
    assert (choice["text"], choice["logprobs"]["text_offset"]) == (prompt + said, [len(prompt)])
    assert choice["logprobs"]["token_logprobs"] == [-1.0]


@given(texts=st.lists(prompts, min_size=1, max_size=3), n=st.integers(1, 2), usage=st.booleans())
def test_each_choice_has_its_own_prompt_and_with_no_tokens_nothing_else(texts, n, usage):
    count = len(texts) * n
    last = TokenChunk(text_delta="x", token_ids=(1,), details=(detail(b"x"),), finish_reason=FinishReason.STOP)
    fields = {"n": n, "max_tokens": 0, "return_token_ids": True}
    whole = json.loads(shape_of(texts, **fields).whole([answer_of([last])] * count, TokenUsage(5, count)))
    assert [choice["text"] for choice in whole["choices"]] == [text for text in texts for _ in range(n)]
    assert {(choice["finish_reason"], *choice["token_ids"]) for choice in whole["choices"]} == {("length",)}
    assert (whole["usage"]["completion_tokens"], whole["usage"]["total_tokens"]) == (0, 5)
    options = {"stream": True, "stream_options": {"include_usage": usage}}
    events = streamed(shape_of(texts, **fields, **options), [(index, last) for index in range(count)])
    assert [each["choices"][0]["text"] for each in events[:count]] == [text for text in texts for _ in range(n)]
    assert [each["usage"]["completion_tokens"] for each in events[count:]] == [0] * usage


def test_what_the_engine_is_asked():
    for fields, expected in [
        ({"echo": True}, (False, 0)),
        ({"echo": True, "logprobs": 3}, (True, 3)),
        ({"echo": True, "logprobs": 1, "prompt_logprobs": 4}, (True, 4)),
        ({"logprobs": 3}, (False, 0)),
    ]:
        sampling = plain(**fields).prompts[0].sampling
        assert (sampling.prompt_logprobs, sampling.prompt_top_logprobs) == expected
    assert plain(echo=True, max_tokens=0).prompts[0].sampling.max_tokens == 1
    assert plain(echo=True).prompts[0].sampling.max_tokens == 16


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1, "echo": True}, "max_tokens"),
        ({"best_of": 2, "n": 3}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"best_of": 9}, "prompt"),
    ],
)
def test_contradictions(fields, param):
    assert refused(plain, **fields).param == param


def test_as_many_as_are_told_may_be_streamed():
    for best_of in (None, 0, 2):
        assert plain(n=2, best_of=best_of, stream=True).drawn == 2


answers = st.lists(st.lists(st.floats(-9, 0), max_size=4), min_size=1, max_size=6)


@given(prompts=st.integers(1, 3), drawn=st.integers(1, 4), n=st.integers(1, 4), data=st.data())
def test_the_best_have_the_highest_log_probability_per_token(prompts, drawn, n, data):
    assume(n <= drawn)
    some = st.lists(st.floats(-9, 0), max_size=4)
    made = [Tokens(request_id=str(at), logprobs=data.draw(some)) for at in range(prompts * drawn)]
    mean = [math.fsum(each.logprobs) / len(each.logprobs) if each.logprobs else -math.inf for each in made]
    best = [int(each.request_id) for each in wire.best_choices(made, drawn, n)]
    assert len(set(best)) == prompts * n
    for number in range(prompts):
        of_one, kept = range(number * drawn, (number + 1) * drawn), best[number * n : (number + 1) * n]
        assert set(kept) <= set(of_one)
        if n == drawn:
            # Who asks for no choice gets them as they were drawn.
            assert kept == [*of_one]
        else:
            assert [mean[at] for at in kept] == sorted((mean[at] for at in of_one), reverse=True)[:n]


@given(prompts=st.integers(1, 3), drawn=st.integers(1, 4), streamed=st.booleans())
def test_a_prompt_is_scored_once_if_that_is_enough(prompts, drawn, streamed):
    asked = SamplingParams(prompt_logprobs=True)
    batches = [ExecuteBatch(request_id="r", model="m", prompt=str(at), sampling=asked) for at in range(prompts)]
    choices = wire.expand(batches, drawn, streamed=streamed)
    scored = [choice.sampling.prompt_logprobs for choice in choices]
    assert scored == [True if streamed else number == 0 for _ in range(prompts) for number in range(drawn)]
    answers = [
        Tokens(logprobs=[-float(at % drawn)], prompt_details=(detail(choice.prompt.encode()),) if first else ())
        for at, (choice, first) in enumerate(zip(choices, scored, strict=True))
    ]
    for at, told in enumerate(wire.best_choices(answers, drawn, 1)):
        assert [each.name for each in told.prompt_details] == [str(at)]


def test_answers_that_nobody_can_rank_keep_their_order():
    made = [Tokens(request_id=str(at)) for at in range(4)]
    assert [each.request_id for each in wire.best_choices(made, 2, 1)] == ["0", "2"]


def test_ranking_needs_log_probabilities_that_nobody_has_to_be_told():
    generation = plain(best_of=3, seed=5)
    batches = wire.expand(generation.prompts, generation.drawn, ranked=True)
    assert [batch.sampling for batch in batches] == [
        SamplingParams(max_tokens=16, seed=5 + at, logprobs=True) for at in range(3)
    ]
    assert not generation.logprobs


async def complete(server, **fields):
    answer = await ask(server, "POST", PLAIN, json.dumps({"model": MODEL, **fields}).encode())
    return answer.status, json.loads(answer.body) if not fields.get("stream") else events_of(answer.body)


async def test_over_http():
    backend = ScriptedBackend([say("one"), say("two")])
    async with serving(app_of(backend)) as server:
        _, whole = await complete(server, prompt=["a", "b"], echo=True, logprobs=1)
        assert [choice["text"] for choice in whole["choices"]] == ["aone", "btwo"]
        assert [choice["logprobs"]["token_logprobs"] for choice in whole["choices"]] == [[None, -2.0, -3.0, -0.5]] * 2
        # Ids are echoed as what they stand for.
        _, whole = await complete(server, prompt=[104, 105], echo=True, max_tokens=0)
        assert (whole["choices"][0]["text"], whole["usage"]["completion_tokens"]) == ("hi", 0)
        _, events = await complete(server, prompt="q", echo=True, stream=True)
        assert json.loads(events[0])["choices"][0]["text"].startswith("q")
        status, refusal = await complete(server, prompt=[999], echo=True)
        assert (status, refusal["error"]["param"]) == (400, "prompt")
        status, best = await complete(server, prompt="q", best_of=2, n=1)
        # Both were drawn, and both count.
        assert (len(best["choices"]), best["usage"]["completion_tokens"]) == (1, 2)
        assert best["choices"][0]["logprobs"] is None
