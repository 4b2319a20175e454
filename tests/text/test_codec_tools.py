"""The codec with tools and reasoning: prompts, grammars, control tokens that must be seen, tokens that are thoughts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import (
    BadRequest,
    Called,
    ExecuteBatch,
    Grammar,
    Message,
    ModelLoadError,
    Role,
    Said,
    SamplingParams,
    Thought,
    Tool,
    ToolOffer,
)
from atomr_trio.text import ChatTemplate, TextCodec, Tokenizer
from atomr_trio.text.thoughts import ThoughtCounter

from .tiny import BYTE_TOKENS, CONTROL, MERGED, tiny_fields

MARKS = ["[TOOL_CALLS]", "[ARGS]", "[THINK]", "[/THINK]", "<other>"]
TEMPLATE = (
    "{% for m in messages %}{{ m.content }}{% endfor %}{{ tools | tojson if tools }}{# [TOOL_CALLS][ARGS][THINK] #}"
)
OFFER = ToolOffer(tools=(Tool("f"), Tool("g")))


@pytest.fixture(scope="module")
def marked():
    plain = [*BYTE_TOKENS, *MERGED]
    tokens = [*plain, *CONTROL, *MARKS]
    fields = tiny_fields(tokens=tokens, token_type=[1] * len(plain) + [3] * (len(CONTROL) + len(MARKS)))
    return Tokenizer.from_gguf(fields)


@pytest.fixture
def codec(marked):
    return TextCodec(marked, ChatTemplate(TEMPLATE), 4096)


def batch(tools=None, content="hi", **sampling):
    messages = [Message(Role.USER, content)]
    return ExecuteBatch(request_id="1", model="m", messages=messages, tools=tools, sampling=SamplingParams(**sampling))


def answer(codec, prepared, ids):
    decoder = codec.output_decoder(prepared.sampling, prepared.form)
    reader = prepared.form.reader()
    pieces = [piece for id in ids for piece in reader.push(decoder.push([id])[0])]
    return [*pieces, *reader.push(decoder.finish()), *reader.finish()], decoder


def test_marks_that_are_control_tokens_are_seen_where_they_are_read(codec, marked):
    ids = marked.encode('[THINK]so[/THINK][TOOL_CALLS]f[ARGS]{"a": 1}<other><|im_end|>', add_special=False)
    assert sum(id in marked.special_ids for id in ids) == 6
    prepared = codec.prepare(batch(OFFER))
    pieces, decoder = answer(codec, prepared, ids)
    assert [each for each in pieces if isinstance(each, Called)] == [Called("f", '{"a": 1}')]
    assert "".join(each.text for each in pieces if isinstance(each, Thought)) == "so"
    assert decoder.reasoning_tokens == 4
    # Those who only want the text see none of them, as ever.
    assert codec.output_decoder(prepared.sampling).push(ids)[0] == 'sof{"a": 1}'


def test_tools_are_in_the_prompt(codec, marked):
    prepared = codec.prepare(batch(OFFER))
    assert '"name": "g"' in marked.decode(prepared.prompt_ids)
    assert (prepared.form.calls, prepared.form.thinking) == ("mistral-args", False)
    assert prepared.sampling.grammar is None
    assert codec.prepare(prepared) == prepared


def test_what_is_required_is_a_grammar(codec, marked):
    own = Grammar("regex", "a+")
    required = ToolOffer(tools=OFFER.tools, required=True, only=frozenset({"g"}), parallel=False)
    grammar = codec.prepare(batch(required, grammar=own)).sampling.grammar
    ids = {mark: marked.encode(mark, add_special=False)[0] for mark in MARKS}
    assert grammar.kind == "lark"
    assert f'call_0: <[{ids["[TOOL_CALLS]"]}]> "g" <[{ids["[ARGS]"]}]> arguments_0' in grammar.text
    assert f"<[{ids['[/THINK]']}]>" in grammar.text
    assert "call_1" not in grammar.text
    assert "answer" not in grammar.text


def test_a_clients_own_grammar_makes_room_for_calls_and_reasoning(codec):
    own = Grammar("regex", "a+")
    prepared = codec.prepare(batch(OFFER, grammar=own))
    assert prepared.sampling.grammar.text.startswith("start: thought? (calls | answer)\n")
    assert codec.prepare(batch(grammar=own)).sampling.grammar.text.startswith("start: thought? (answer)\n")


def test_a_clients_own_grammar_that_makes_no_room_is_what_there_is(marked, codec):
    own = Grammar("lark", "start: /a+/")
    prepared = codec.prepare(batch(OFFER, grammar=own))
    assert (prepared.sampling.grammar, prepared.form.thoughts) == (own, None)
    assert codec.prepare(batch(grammar=own)).form is None
    # The prompt has begun to think, but the grammar says that the answer comes at once.
    thinking = TextCodec(marked, ChatTemplate("{{ messages[0].content }}<think>\n"), 4096)
    assert thinking.prepare(batch(grammar=own)).form is None
    assert thinking.prepare(batch(grammar=Grammar("regex", "a+"))).form.thinking
    plain = TextCodec(marked, ChatTemplate("{{ messages[0].content }}"), 4096)
    assert plain.prepare(batch(grammar=Grammar("regex", "a+"))).sampling.grammar == Grammar("regex", "a+")


def test_a_prompt_that_begins_the_reasoning(marked):
    codec = TextCodec(marked, ChatTemplate("{{ messages[0].content }}<think>\n"), 4096)
    prepared = codec.prepare(batch())
    assert prepared.form.thinking
    pieces, decoder = answer(codec, prepared, b"so</think>\nRain.")
    assert "".join(each.text for each in pieces if isinstance(each, Thought)) == "so"
    assert "".join(each.text for each in pieces if isinstance(each, Said)) == "Rain."
    assert decoder.reasoning_tokens == len("so</think>")


def test_styles_can_be_set(marked):
    plain = TextCodec(marked, ChatTemplate(TEMPLATE), 4096, thought_style="none", tool_style="none")
    assert plain.prepare(batch()).form is None
    with pytest.raises(BadRequest):
        plain.prepare(batch(OFFER))
    with pytest.raises(ModelLoadError):
        TextCodec(marked, ChatTemplate(TEMPLATE), 4096, tool_style="xml")
    assert TextCodec(marked, None, 4096).prepare(ExecuteBatch(request_id="1", model="m", prompt="x")).form is None


@given(
    head=st.sampled_from(["", " ", "\n\n", "x", "<thi"]),
    opened=st.booleans(),
    thought=st.text("a</think>", max_size=8),
    closed=st.booleans(),
    rest=st.text("a<", max_size=5),
    thinking=st.booleans(),
    sizes=st.lists(st.integers(0, 5)),
)
def test_thoughts_are_counted_to_the_token_in_which_they_end(head, opened, thought, closed, rest, thinking, sizes):
    text = head + "<think>" * opened + thought + "</think>" * closed + rest
    tokens, at = [], 0
    for size in [*sizes, *[1] * len(text)]:
        tokens.append(text[at : at + size])
        at += size
    counter = ThoughtCounter("<think>", "</think>", thinking)
    for token in tokens:
        counter.push(token)
    if not thinking and not text.lstrip(" \t\r\n").startswith("<think>"):
        assert counter.tokens == 0
        return
    end = text.find("</think>")
    length, wanted = 0, 0
    while wanted < len(tokens) and (end < 0 or length < end + len("</think>")):
        length, wanted = length + len(tokens[wanted]), wanted + 1
    assert counter.tokens == wanted
