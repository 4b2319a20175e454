"""Conversations with tools in the words of many templates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import (
    BadRequest,
    Called,
    ExecuteBatch,
    Message,
    ModelLoadError,
    Role,
    Said,
    Thought,
    Tool,
    ToolCall,
    ToolOffer,
)
from atomr_trio.text import ChatTemplate, Dialogue
from atomr_trio.text.calls import FORMS, form_of

# Small templates, each with the habits of a family.
QWEN = """{% if tools %}<system>{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}{% for m in messages %}\
<{{ m.role }}>{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}\
{% for c in m.tool_calls %}<tool_call>
{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}
</tool_call>{% endfor %}{% endfor %}<assistant>"""
LLAMA = """<|start_header_id|>{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<{{ m.role }}>\
{% if m.tool_calls %}{% if m.tool_calls | length != 1 %}{{ raise_exception('one at a time') }}{% endif %}\
{"name": "{{ m.tool_calls[0].function.name }}", "parameters": {{ m.tool_calls[0].function.arguments | tojson }}}\
{% else %}{{ m.content }}{% endif %}{% endfor %}<assistant>"""
MISTRAL = """{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}{% endif %}{% for m in messages %}\
{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]\
{% elif m.tool_calls is defined %}[TOOL_CALLS]{% for c in m.tool_calls %}{% if c.id | length != 9 %}\
{{ raise_exception('ids have nine letters') }}{% endif %}{{ c.function | tojson }}, {{ c.id }}{% endfor %}\
{% elif m.role == 'tool' %}{% if m.tool_call_id | length != 9 %}{{ raise_exception('nine letters') }}{% endif %}\
[TOOL_RESULTS]{{ m.tool_call_id }}{{ m.content }}\
{% else %}{{ m.content }}{% endif %}{% endfor %}"""
DEEPSEEK = """{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls %}\
{{ '```json' + c.function.name + c.function.arguments }}{% endfor %}{% endfor %}<assistant><think>
"""
GEMMA = """{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{% for m in messages %}\
{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}\
<start_of_turn>{{ m.role }} {{ m.content }}{% endfor %}<start_of_turn>model"""
SMOLLM3 = (
    "{% if xml_tools %}{{ xml_tools | tojson }}{% endif %}{% for m in messages %}{{ m.content }}{% endfor %}<tool_call>"
)
TEMPLATES = {"qwen": QWEN, "llama": LLAMA, "mistral": MISTRAL, "gemma": GEMMA, "smollm3": SMOLLM3}

WEATHER = Tool("get_weather", "Tell the weather.", {"type": "object", "properties": {"city": {"type": "string"}}})
OFFER = ToolOffer(tools=(WEATHER, Tool("now")))
ASK = Message(Role.USER, "How is it in Bonn?")
CALLS = (ToolCall("call_1", "get_weather", '{"city": "Bonn"}'), ToolCall("call_2", "now"))
RESULTS = (
    Message(Role.TOOL, "noon", tool_call_id="call_2", name="now"),
    Message(Role.TOOL, "rain", tool_call_id="call_1", name="get_weather"),
)
SPOKEN = Message(Role.ASSISTANT, "", tool_calls=CALLS)


def dialogue(name, *styles):
    return Dialogue(ChatTemplate(TEMPLATES.get(name, name)), *styles)


def batch(*messages, tools=None):
    return ExecuteBatch(request_id="1", model="m", messages=messages, tools=tools)


@pytest.mark.parametrize(
    ("template", "tools", "arguments", "many", "results", "system", "form"),
    [
        (QWEN, "tools", "object", True, True, True, "hermes"),
        (LLAMA, "tools", "object", False, True, True, "llama3"),
        (MISTRAL, "tools", "object", True, True, True, "mistral"),
        (DEEPSEEK, None, "text", True, True, True, None),
        (GEMMA, None, None, False, False, False, "gemma"),
        (SMOLLM3, "xml_tools", None, False, True, True, "hermes"),
    ],
)
def test_what_a_template_can_do_is_found_out(template, tools, arguments, many, results, system, form):
    found = Dialogue(ChatTemplate(template))
    traits = found.traits
    assert (traits.tools, traits.arguments, traits.many_calls) == (tools, arguments, many)
    assert (traits.results, traits.system) == (results, system)
    assert (found.calls and found.calls.name) == form


def test_the_default_models_template(codec):
    found = Dialogue(codec.template)
    assert (found.calls.name, found.thoughts) == ("smollm", None)
    assert (found.traits.tools, found.traits.arguments) == (None, None)


@pytest.mark.parametrize(
    ("source", "form"),
    [
        ("[TOOL_CALLS]", "mistral"), ("[TOOL_CALLS][ARGS]", "mistral-args"), ("<|python_tag|>", "llama3"),
        ("<tool_call><|start_header_id|>", "hermes"), ("<tool_call><function=", None), ("tool_calls", None),
        ("", "hermes"), ("SmolLM <tool_call>", "hermes"), ("SmolLM", "smollm"),
    ],
)  # fmt: skip
def test_the_form_follows_from_the_template(source, form):
    found = form_of(source)
    assert (found and found.name) == form


def test_tools_go_to_the_template():
    text = dialogue("qwen").render(batch(ASK, tools=OFFER))
    assert '{"type": "function", "function": {"name": "get_weather", "description": "Tell the weather.", ' in text
    assert '"parameters": {"type": "object", "properties": {}}' in text
    assert "get_weather" not in dialogue("qwen").render(batch(ASK))


def test_calls_and_results_go_to_the_template():
    text = dialogue("qwen").render(batch(ASK, SPOKEN, *RESULTS, tools=OFFER))
    assert '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Bonn"}}\n</tool_call>' in text
    assert text.endswith("<tool>noon<tool>rain<assistant>")


def test_reasoning_goes_back_to_the_template():
    text = dialogue("qwen").render(batch(ASK, Message(Role.ASSISTANT, "It rains.", reasoning="I looked."), ASK))
    assert "<think>I looked.</think>It rains." in text


def test_one_call_in_a_turn_where_a_template_takes_no_more():
    text = dialogue("llama").render(batch(ASK, SPOKEN, *RESULTS, tools=OFFER))
    assert text.endswith(
        '<assistant>{"name": "get_weather", "parameters": {"city": "Bonn"}}<tool>rain'
        '<assistant>{"name": "now", "parameters": {}}<tool>noon<assistant>'
    )


def test_results_of_other_calls_are_not_lost():
    stray = Message(Role.TOOL, "stray", tool_call_id="call_3")
    text = dialogue("llama").render(batch(ASK, SPOKEN, stray, *RESULTS, ASK))
    assert [text.index(word) for word in ("rain", "noon", "stray")] == sorted(
        map(text.index, ("rain", "noon", "stray"))
    )


def test_ids_are_short_where_they_have_to_be():
    text = dialogue("mistral").render(batch(ASK, SPOKEN, *RESULTS, tools=OFFER))
    first, second = (part.split("}, ")[-1][:9] for part in text.split("[TOOL_CALLS]")[1].split('{"name"')[1:])
    assert first != second
    assert first.isalnum()
    assert f"[TOOL_RESULTS]{second}noon[TOOL_RESULTS]{first}rain" in text
    ours = ToolCall("abcdefghi", "now")
    assert "abcdefghi" in dialogue("mistral").render(batch(ASK, Message(Role.ASSISTANT, "", tool_calls=(ours,))))


def test_arguments_are_text_where_they_have_to_be():
    assert '```jsonget_weather{"city": "Bonn"}' in dialogue(DEEPSEEK).render(batch(ASK, SPOKEN))


def test_a_template_that_knows_no_tools_is_taught():
    text = dialogue("gemma").render(batch(ASK, SPOKEN, *RESULTS, ASK, tools=OFFER))
    lesson, asked = text.split(ASK.text)[:2]
    assert lesson.startswith("<start_of_turn>user You can call functions.")
    assert '"name": "get_weather"' in lesson
    assert FORMS["gemma"].layout.render([ToolCall("", "function_name", '{"parameter_name": "value"}')]) in lesson
    assert asked.startswith(
        "<start_of_turn>assistant ```json\n" + '{"name": "get_weather", "parameters": {"city": "Bonn"}}'
    )
    results = "<start_of_turn>user ```tool_output\nnoon\n```\n\n```tool_output\nrain\n```\n\n" + ASK.text
    assert results in text
    assert text.count("<start_of_turn>user") == 2


def test_the_lesson_comes_after_the_clients_own_instructions(codec):
    brief = Message(Role.SYSTEM, "Be brief.")
    text = Dialogue(codec.template).render(batch(brief, ASK, tools=OFFER))
    assert text.startswith("<|im_start|>system\nBe brief.\n\nYou can call functions.")
    assert text.count("<|im_start|>system") == 1
    assert '<tool_call>[{"name": "function_name", "arguments": {"parameter_name": "value"}}]</tool_call>' in text
    alone = Dialogue(codec.template).render(batch(ASK, tools=OFFER))
    assert alone.startswith("<|im_start|>system\nYou can call functions.")


def test_calls_in_a_template_that_knows_none_are_text(codec):
    said = Message(Role.ASSISTANT, "Let me see.", tool_calls=CALLS[1:])
    text = Dialogue(codec.template).render(batch(ASK, said, RESULTS[0]))
    assert 'assistant\nLet me see.\n<tool_call>[{"name": "now", "arguments": {}}]</tool_call><|im_end|>' in text
    assert "<|im_start|>tool\nnoon<|im_end|>" in text


@pytest.mark.parametrize("messages", [(ASK,), (ASK, SPOKEN)])
def test_a_model_that_cannot_call_refuses_tools(messages):
    found = dialogue(DEEPSEEK)
    with pytest.raises(BadRequest, match="not known") as caught:
        found.render(batch(*messages, tools=OFFER))
    assert caught.value.param == "tools"
    with pytest.raises(BadRequest) as caught:
        dialogue("gemma", "none").render(batch(ASK, SPOKEN))
    assert caught.value.param == "messages"


def test_a_deployment_may_say_it_better():
    found = dialogue(DEEPSEEK, "hermes", "none")
    assert (found.calls, found.thoughts) == (FORMS["hermes"], None)
    assert "<tools>" in found.render(batch(ASK, tools=OFFER))
    for styles in (("xml",), ("auto", "loud")):
        with pytest.raises(ModelLoadError, match="there is no"):
            dialogue("qwen", *styles)


def read(form, text):
    reader = form.reader()
    return [*reader.push(text), *reader.finish()]


def test_how_the_answer_is_read():
    found = dialogue("qwen")
    form = found.form(found.render(batch(ASK, tools=OFFER)), batch(ASK, tools=OFFER))
    assert (form.calls, form.thoughts, form.thinking) == ("hermes", ("<think>", "</think>"), False)
    call = '<tool_call>{"name": "now"}</tool_call>'
    assert read(form, "<think>so</think>" + call) == [Thought("so"), Called("now", "{}")]
    # Every answer has a reader of its own.
    assert read(form, "<think>so") == [Thought("so")]
    plain = found.form(found.render(batch(ASK)), batch(ASK))
    assert read(plain, call) == [Said(call)]


def test_reasoning_that_the_prompt_begins():
    found = dialogue(DEEPSEEK)
    form = found.form(found.render(batch(ASK)), batch(ASK))
    assert form.thinking
    assert read(form, "so</think>\n\nRain.") == [Thought("so"), Said("Rain.")]


def test_a_model_that_does_neither_is_plain_text():
    found = dialogue("gemma")
    assert found.form(found.render(batch(ASK)), batch(ASK)) is None


def test_only_what_may_be_called_is_called():
    offer = ToolOffer(tools=OFFER.tools, only=frozenset({"now"}), parallel=False)
    form = dialogue("qwen").form("", batch(ASK, tools=offer))
    other = '<tool_call>{"name": "get_weather"}</tool_call>'
    assert read(form, other) == [Said(other)]
    assert read(form, '<tool_call>[{"name": "now"}, {"name": "now"}]</tool_call>') == [Called("now", "{}")]


turns = st.lists(
    st.builds(Message, st.sampled_from([Role.USER, Role.ASSISTANT, Role.SYSTEM]), st.text(max_size=3))
    | st.builds(Message, st.just(Role.TOOL), st.text(max_size=3), tool_call_id=st.sampled_from(["a", "b", ""]))
    | st.builds(
        Message,
        st.just(Role.ASSISTANT),
        st.text(max_size=3),
        tool_calls=st.lists(st.builds(ToolCall, st.sampled_from(["a", "b", "\ud800"]), st.just("now")), max_size=3),
    ),
    max_size=6,
)


@given(name=st.sampled_from(sorted(TEMPLATES)), messages=turns, tools=st.booleans())
def test_any_conversation_is_rendered_or_refused(name, messages, tools):
    try:
        text = dialogue(name).render(batch(*messages, tools=OFFER if tools else None))
    except BadRequest:
        return
    assert isinstance(text, str)
    results = [turn.text for turn in messages if turn.role is Role.TOOL]
    assert all(result in text for result in results)


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_what_is_nested_too_deeply_is_refused(name):
    deep = {}
    for _ in range(100_000):
        deep = {"a": deep}
    offer = ToolOffer(tools=(Tool("f", parameters=deep),), required=True)
    with pytest.raises(BadRequest):
        dialogue(name).render(batch(ASK, tools=offer))
    called = Message(Role.ASSISTANT, "", tool_calls=[ToolCall("1", "f", '{"a":' * 100_000 + "1" + "}" * 100_000)])
    if dialogue(name).traits.arguments == "object":
        with pytest.raises(BadRequest):
            dialogue(name).render(batch(ASK, called))
    with pytest.raises(BadRequest):
        asked = batch(ASK, tools=offer)
        dialogue(name).grammar(dialogue(name).form("", asked), asked, {})
    # What is nested that deeply is taken apart by recursion, too.
    while deep:
        deep = deep.pop("a")
