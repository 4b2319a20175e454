"""The fields that speak to a model's chat template: what is taken, and what reaches the template."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import BadRequest, Rendering
from atomr_trio.gateway import wire

from .test_wire_requests import USER, chat, refused

BEGUN = [USER, {"role": "assistant", "content": "The"}]
TEXTS = st.text(st.characters(codec="utf-8"), max_size=4)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(-1e9, 1e9) | TEXTS
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner), max_leaves=4)
KWARGS = st.dictionaries(TEXTS, VALUES, max_size=3)


def tokenize(**fields):
    return wire.token_question(wire.decode_tokenize(json.dumps({"messages": [USER], **fields}).encode()), "m")


@given(begin=st.none() | st.booleans(), go_on=st.none() | st.booleans(), last=st.booleans(), kwargs=KWARGS)
def test_answers_and_questions_for_tokens_render_alike(begin, go_on, last, kwargs):
    fields = {"add_generation_prompt": begin, "continue_final_message": go_on, "chat_template_kwargs": kwargs}
    fields["messages"] = BEGUN if last else [USER]
    got = []
    for route in (lambda **asked: chat(**asked).prompts[0], tokenize):
        try:
            got.append(route(**fields).rendering)
        except BadRequest as error:
            got.append(error.param)
    assert repr(got[0]) == repr(got[1])
    if go_on and (begin or not last):
        assert got[0] == "continue_final_message"
    else:
        assert isinstance(got[0], Rendering)
        assert (got[0].go_on, got[0].begin) == (bool(go_on), begin is not False and not go_on)
        assert json.dumps(got[0].variables) == json.dumps(kwargs)


def test_the_usual_is_the_default():
    assert chat().prompts[0].rendering == tokenize().rendering == Rendering()
    assert chat(reasoning_effort="low").prompts[0].rendering.effort == "low"


@pytest.mark.parametrize(
    ("name", "value"), [("reasoning_effort", "much"), ("chat_template_kwargs", []), ("chat_template_kwargs", "x")]
)
def test_a_wrong_value_is_named(name, value):
    assert refused(chat, **{name: value}).param == name
