"""Values and errors: what they refuse, how they add up, how they are written."""

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio import core
from atomr_trio.core import (
    BadRequest,
    Deployment,
    ExecuteBatch,
    FinishReason,
    ImageUrl,
    InferenceError,
    Message,
    Role,
    SamplingParams,
    TextPart,
    TokenChunk,
    Tokens,
    TokenUsage,
)

ERRORS = [cls for cls in vars(core).values() if inspect.isclass(cls) and issubclass(cls, InferenceError)]
SAMPLES = {str: "x", int: 7, float: 1.5}


def build(cls):
    arguments = [
        SAMPLES[field.type] for field in cls.__attrs_attrs__ if field.default is not None and field.type in SAMPLES
    ]
    required = [a for a, field in zip(arguments, cls.__attrs_attrs__, strict=False) if field.default is not None]
    return cls(*required)


@pytest.mark.parametrize("cls", [cls for cls in ERRORS if cls is not InferenceError], ids=lambda cls: cls.__name__)
def test_every_error_has_a_kind_a_text_and_a_tagged_form(cls):
    error = build(cls)
    assert str(error)
    form = error.to_dict()
    assert form["kind"] == cls.kind
    assert None not in form.values()


def test_kinds_are_unique():
    kinds = [cls.kind for cls in ERRORS if cls is not InferenceError]
    assert len(kinds) == len(set(kinds))


@pytest.mark.parametrize("name", ["RateLimited", "NetworkError", "ServerError", "Timeout"])
def test_what_may_be_retried(name):
    assert getattr(core, name).retryable
    assert getattr(core, name).counts_for_breaker is (name != "RateLimited")
    assert sum(cls.retryable for cls in ERRORS) == 4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -2),
        ("min_p", 1.5),
        ("presence_penalty", 2.5),
        ("frequency_penalty", -2.5),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", float("nan")),
        ("logit_bias", {5: 101.0}),
        ("logit_bias", {5: float("nan")}),
        ("logit_bias", {-1: 1.0}),
        ("top_logprobs", 21),
        ("top_logprobs", -1),
        ("max_tokens", 0),
        ("min_tokens", -1),
        ("frequency_penalty", float("inf")),
    ],
)
def test_sampling_out_of_range_names_the_field(field, value):
    with pytest.raises(BadRequest, match=field) as caught:
        SamplingParams(**{field: value})
    assert caught.value.param == field


@pytest.mark.parametrize("bad", [{"name": ""}, {"model": ""}, {"replicas": 0}])
def test_a_deployment_needs_names_and_replicas(bad):
    with pytest.raises(ValueError, match=r"must be|Length"):
        Deployment(**{"name": "n", "model": "m", **bad})


def test_the_text_of_messages():
    assert Message("user", "plain").text == "plain"
    assert Message(Role.USER, (TextPart("a"), TextPart("b"))).text == "ab"
    with pytest.raises(BadRequest, match="only text"):
        _ = Message(Role.USER, (ImageUrl("http://x"),)).text
    batch = ExecuteBatch(
        request_id="r",
        model="m",
        messages=(Message("user", "first"), Message("user", "last"), Message("assistant", "no")),
        estimated_tokens=0,
    )
    assert (batch.last_user_text, batch.estimated_tokens) == ("last", 1)
    assert ExecuteBatch(request_id="r", model="m", prompt="p").last_user_text == "p"


CHUNKS = st.builds(
    TokenChunk,
    text_delta=st.text(max_size=4),
    token_ids=st.lists(st.integers(0, 9), max_size=3).map(tuple),
    usage=st.none() | st.builds(TokenUsage, *[st.integers(0, 9)] * 4),
    finish_reason=st.none() | st.sampled_from(FinishReason),
)


@given(chunks=st.lists(CHUNKS, max_size=10))
def test_an_answer_is_the_sum_of_its_chunks(chunks):
    tokens = Tokens("r")
    for chunk in chunks:
        tokens.append(chunk)
    assert tokens.text == "".join(chunk.text_delta for chunk in chunks)
    assert tokens.token_ids == [id for chunk in chunks for id in chunk.token_ids]
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    assert tokens.usage == sum(usages, TokenUsage())
    assert tokens.usage.total_tokens == sum(usage.total_tokens for usage in usages)
    reasons = [chunk.finish_reason for chunk in chunks if chunk.finish_reason]
    assert tokens.finish_reason == (reasons[-1] if reasons else None)
