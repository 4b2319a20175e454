from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import BadRequest, ModelLoadError
from atomr_trio.text import ChatTemplate

TURN = {"role": "user", "content": "hi"}


def render(source, messages=(TURN,), **kwargs):
    return ChatTemplate(source, "<s>", "</s>").render(messages, **kwargs)


def test_what_a_template_gets():
    source = "{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m['content'] }}{{ eos_token }}{% endfor %}"
    assert render(source + "{{ 'A' if add_generation_prompt }}") == "<s>user:hi</s>A"
    assert render(source + "{{ 'A' if add_generation_prompt }}", add_generation_prompt=False) == "<s>user:hi</s>"
    assert render("{{ tools is none }}{{ documents is none }}") == "TrueTrue"
    assert render("{{ tools[0] }}", tools=["saw"]) == "saw"


def test_blocks_take_their_line_with_them():
    assert render("  {% if true %}\nx\n  {% endif %}\ny") == "x\ny"


def test_loop_controls():
    skip, leave = "{% if i == 1 %}{% continue %}{% endif %}", "{% if i == 4 %}{% break %}{% endif %}"
    assert render("{% for i in range(9) %}" + skip + leave + "{{ i }}{% endfor %}") == "023"


def test_json_keeps_its_letters():
    assert render("{{ x | tojson }}", x={"ü": "<日>"}) == '{"ü": "<日>"}'
    assert render("{{ x | tojson(indent=2) }}", x=[1]) == "[\n  1\n]"


def test_the_time_comes_from_the_clock_given():
    template = ChatTemplate("{{ strftime_now('%d %b %Y') }}", now=lambda: datetime(2024, 7, 26))
    assert template.render([]) == "26 Jul 2024"


def test_marks_for_training_are_only_their_content():
    assert render("a{% generation %}{{ messages[0].content }}{% endgeneration %}b") == "ahib"


def test_a_template_that_refuses_says_why():
    with pytest.raises(BadRequest, match="roles must alternate") as caught:
        render("{{ raise_exception('roles must alternate') }}")
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "source", ["{% for %}", "{{ x", "{% endif %}", "{% include %}", "{{ 'a' | nosuch }}", "{{" + "(" * 5000]
)
def test_a_template_that_is_no_template(source):
    with pytest.raises(ModelLoadError, match="chat template is not valid"):
        ChatTemplate(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ strftime_now.__globals__['os'] }}",
        "{{ range.__call__.__globals__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ ''|attr('__class__') }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='x') }}",
        "{{ lipsum() }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}{{ os }}",
    ],
)
def test_hostile_templates_get_nowhere(source):
    messages = [dict(TURN)]
    try:
        # The sandbox hides what is forbidden as if it were not there; only its use is an error.
        assert render(source, messages) == ""
    except BadRequest as error:
        assert error.param == "messages"
    assert messages == [TURN]


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(10 ** 9) %}x{% endfor %}",
        "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
        "{% for i in range(1000) %}{{ 'x' * 65000 }}{{ 'x' * 65000 }}{% endfor %}",
        "{{ 'x' * 10 ** 9 }}",
        "{{ 10 ** 9 * [1] }}",
        "{{ 9 ** (9 ** 9) }}",
        "{% set n = namespace(x=10 ** 60) %}{% for i in range(99) %}{% set n.x = n.x * n.x %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ range(10 ** 9) | list }}",
    ],
)
def test_greedy_templates_are_stopped(source):
    with pytest.raises(BadRequest):
        render(source)


def test_ordinary_sums_work():
    assert (
        render("{{ '=' * 3 }}{{ 3 * '-' }}{{ 6 * 7 }}{{ 2 ** 10 }}{{ 1.5 * 2 }}{{ 2 ** 0.5 > 1 }}")
        == "===---4210243.0True"
    )


def test_each_rendering_has_its_own_allowance():
    template = ChatTemplate("{% for i in range(600000) %}{% endfor %}ok")
    assert [template.render([]) for _ in range(3)] == ["ok"] * 3


def test_insides_stay_inside():
    with pytest.raises(BadRequest) as caught:
        render("{{ 1 / 0 }}")
    assert str(caught.value) == "bad request: the model's chat template fails on this conversation"


@given(turns=st.lists(st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), st.text())))
def test_text_is_text_even_when_it_looks_like_a_template(turns):
    source = "{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}"
    messages = [{"role": role, "content": content + "{{ 1 + 1 }}{% raw %}"} for role, content in turns]
    assert render(source, messages) == "".join(turn["role"] + turn["content"] for turn in messages)
