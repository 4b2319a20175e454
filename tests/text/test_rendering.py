"""What clients say to a chat template: their variables, how hard to think, and turns that are not finished."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import (
    BadRequest,
    ExecuteBatch,
    Message,
    Rendering,
    Role,
    Tokenize,
    ToolCall,
)
from atomr_trio.text import ChatTemplate, Dialogue

from .test_dialogue import TEMPLATES

ASK = Message(Role.USER, "How is it?")
SWITCH = """{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>\
{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}{% endif %}"""
DEGREES = "{{ reasoning_effort | default('usual') }}{% for m in messages %}{{ m.content }}{% endfor %}"
READS = "{{ a }}{% for x in b %}{{ x.y }}{% endfor %}{{ c.d.e }}{{ a | tojson }}{{ namespace }}{{ loop }}{{ range(2) }}"


def asked(*messages, **how):
    return ExecuteBatch(request_id="1", model="m", messages=messages or [ASK], rendering=Rendering(**how))


def render(source, *messages, **how):
    return Dialogue(ChatTemplate(TEMPLATES.get(source, source))).render(asked(*messages, **how))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner))
names = st.sampled_from([
    "a", "b", "c", "self", "messages", "tools", "loop", "range", "namespace", "raise_exception", "bos_token", "context",
    "environment", "documents", "add_generation_prompt", "kwargs", "cls", "1", "", "dict", "m",
])  # fmt: skip


@given(
    variables=st.dictionaries(names | st.text(max_size=3), values, max_size=4), which=st.sampled_from([READS, SWITCH])
)
def test_any_variables_give_a_prompt_or_a_typed_error(variables, which):
    try:
        assert isinstance(render(which, variables=variables), str)
    except BadRequest as error:
        assert error.param in {"messages", "chat_template_kwargs"}


@pytest.mark.parametrize("name", ["messages", "tools", "xml_tools", "add_generation_prompt", "bos_token", "self"])
def test_what_is_ours_cannot_be_set(name):
    with pytest.raises(BadRequest) as caught:
        render(SWITCH, variables={name: []})
    assert caught.value.param == "chat_template_kwargs"


def test_variables_reach_the_template():
    assert render(SWITCH).endswith("<assistant>")
    assert render(SWITCH, variables={"enable_thinking": False}).endswith("<think></think>")
    assert "<assistant>" not in render(SWITCH, begin=False, variables={"enable_thinking": False})


def test_an_effort_goes_where_it_is_known():
    assert render(DEGREES).startswith("usual")
    assert render(DEGREES, effort="high").startswith("high")
    assert render(DEGREES, effort="none").startswith("none")
    # The client's own word is the last.
    assert render(DEGREES, effort="high", variables={"reasoning_effort": "low"}).startswith("low")
    assert render(SWITCH, effort="none").endswith("<think></think>")
    assert render("gemma", effort="none") == render("gemma")
    for source in (SWITCH, "gemma"):
        with pytest.raises(BadRequest) as caught:
            render(source, effort="high")
        assert caught.value.param == "reasoning_effort"


def turn(text, **fields):
    return Message(Role.ASSISTANT, text, **fields)


@given(
    template=st.sampled_from([*TEMPLATES, SWITCH]),
    text=st.text(st.characters(codec="utf-8", exclude_characters="\ue000\ue001"), max_size=6),
)
def test_a_turn_that_is_gone_on_with_ends_the_prompt(template, text):
    got = render(template, ASK, turn(text), go_on=True)
    assert got.endswith(text)
    # The prompt is what the template makes of a longer turn, up to here.
    assert render(template, ASK, turn(text + "LONGER")).startswith(got + "LONGER")


def test_a_template_that_trims_does_not_trim_what_is_gone_on_with():
    trims = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</>{% endfor %}"
    assert render(trims, ASK, turn("so: "), go_on=True) == "<user>How is it?</><assistant>so: "


def test_a_client_that_writes_the_mark_itself_changes_nothing():
    mark = "\ue000\ufdd0\ue001"
    assert render(SWITCH, ASK, turn(f"a{mark}b"), go_on=True) == f"<user>How is it?<assistant>a{mark}b"


@pytest.mark.parametrize(
    "messages",
    [[ASK], [ASK, turn("x", tool_calls=(ToolCall("call_1", "f"),))], [turn("x"), ASK]],
)
def test_what_cannot_be_gone_on_with(messages):
    with pytest.raises(BadRequest) as caught:
        render(SWITCH, *messages, go_on=True)
    assert caught.value.param == "messages"


def test_a_template_that_leaves_the_turn_out():
    with pytest.raises(BadRequest):
        render("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", ASK, turn("x"), go_on=True)


@pytest.mark.parametrize(
    ("begun", "thinking"), [("", False), ("<think>so", True), ("<think>so</think>The", False), ("The", False)]
)
def test_reasoning_that_the_client_has_begun_goes_on(begun, thinking):
    dialogue = Dialogue(ChatTemplate(SWITCH))
    batch = asked(ASK, turn(begun), go_on=True)
    assert dialogue.form(dialogue.render(batch), batch).thinking is thinking


@given(begin=st.booleans(), go_on=st.booleans(), text=st.text("ab", max_size=3))
def test_tokens_are_asked_of_the_same_prompt(begin, go_on, text):
    dialogue = Dialogue(ChatTemplate(SWITCH))
    batch = asked(ASK, turn(text), begin=begin, go_on=go_on)
    question = Tokenize(model="m", messages=batch.messages, rendering=batch.rendering)
    assert dialogue.render(question) == dialogue.render(batch)
