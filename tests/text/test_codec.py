import pytest
from gguf import GGUFWriter
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import (
    BadRequest,
    ContextLengthExceeded,
    ExecuteBatch,
    ImageUrl,
    InferenceError,
    Internal,
    Message,
    ModelLoadError,
    Rendering,
    Role,
    SamplingParams,
    TextPart,
    Tokenize,
    TokenLogprob,
    Vocabulary,
)
from atomr_trio.text import ChatTemplate, Detokenizer, OutputDecoder, StopMatcher, TextCodec

from .tiny import EOS, IM_END, TOKENS, tiny_fields

TEMPLATE = "{% for m in messages %}{{ m.role }}:{{ m.content }}<|im_end|>{% endfor %}"


def batch(prompt=None, *, messages=(), **sampling):
    return ExecuteBatch(
        request_id="1", model="m", prompt=prompt, messages=messages, sampling=SamplingParams(**sampling)
    )


@pytest.fixture(scope="session")
def small(tiny) -> TextCodec:
    return TextCodec(tiny, ChatTemplate(TEMPLATE), max_model_len=32)


def write_gguf(path, architecture="llama", **fields):
    writer = GGUFWriter(path, architecture)
    for key, value in fields.items():
        name = key.replace("__", ".")
        if isinstance(value, list):
            writer.add_array(name, value)
        elif isinstance(value, bool):
            writer.add_bool(name, value)
        elif isinstance(value, int):
            writer.add_uint32(name, value)
        else:
            writer.add_string(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tokenizer_fields():
    return {key.replace(".", "__"): value for key, value in tiny_fields().items()}


def test_a_plain_prompt(small):
    made = small.prepare(batch("hello hello", max_tokens=5))
    assert [TOKENS[id] for id in made.prompt_ids] == ["<|bos|>", "hello", "Ġhello"]
    assert made.sampling.max_tokens == 5
    assert made.estimated_tokens == 8
    assert made.prompt == "hello hello"


def test_a_conversation_is_rendered_and_its_control_tokens_are_parsed(small):
    made = small.prepare(batch(messages=[Message(Role.USER, (TextPart("he"), TextPart("llo")))]))
    assert made.prompt_ids == (*b"user:", TOKENS.index("hello"), IM_END)


def test_token_ids_pass_as_they_are(small):
    assert small.prepare(batch((1, EOS, 3))).prompt_ids == (1, EOS, 3)


def test_without_a_limit_the_answer_may_fill_the_context(small):
    assert small.prepare(batch((1, 2, 3))).sampling.max_tokens == 29


@given(length=st.integers(1, 40), wanted=st.none() | st.integers(1, 100))
def test_room_is_what_the_context_leaves(small, length, wanted):
    asked = batch((7,) * length, max_tokens=wanted)
    if length >= 32:
        with pytest.raises(ContextLengthExceeded) as caught:
            small.prepare(asked)
        assert (caught.value.tokens, caught.value.max_tokens) == (length + 1, 32)
        return
    made = small.prepare(asked)
    assert made.sampling.max_tokens == min(wanted or 32, 32 - length)
    assert len(made.prompt_ids) + made.sampling.max_tokens <= 32


def test_an_absurd_text_is_refused_before_it_is_tokenized(small, monkeypatch):
    monkeypatch.setattr(type(small.tokenizer), "encode", None)
    text = "é" * 100_000
    with pytest.raises(ContextLengthExceeded) as caught:
        small.prepare(batch(text))
    assert caught.value.tokens == len(text.encode()) // small.tokenizer.max_token_bytes
    with pytest.raises(ContextLengthExceeded):
        small.prepare(batch(messages=[Message(Role.USER, text)]))


@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_what_fits_is_never_refused_as_absurd(tiny, text):
    ids = tiny.encode(text)
    codec = TextCodec(tiny, None, max_model_len=len(ids) + 1)
    assert list(codec.prepare(batch(text)).prompt_ids) == ids


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (batch(""), "prompt"),
        (batch(()), "prompt"),
        (batch(None), "prompt"),
        (batch((0, len(TOKENS))), "prompt"),
        (batch((-1,)), "prompt"),
        (batch("a\ud800"), "prompt"),
        (batch(messages=[Message(Role.USER, "a\udfff")]), "messages"),
        (batch(messages=[Message(Role.USER, (ImageUrl("x"),))]), "messages"),
        (batch("x", stop=("a", "")), "stop"),
        (batch("x", stop_token_ids=(len(TOKENS),)), "stop_token_ids"),
        (batch("x", logit_bias={len(TOKENS): 1.0}), "logit_bias"),
    ],
)
def test_bad_requests_name_their_field(small, asked, param):
    with pytest.raises(BadRequest) as caught:
        small.prepare(asked)
    assert caught.value.param == param


def test_a_prompt_of_unknown_bytes_is_empty(codec):
    with pytest.raises(BadRequest, match="empty"):
        codec.prepare(batch("\x04"))


@given(text=st.text(st.characters(exclude_categories=["Cs"])), add=st.booleans(), parse=st.booleans())
def test_tokens_are_told_and_spell_the_text(small, text, add, parse):
    ids = small.tokenize(Tokenize(model="m", text=text, add_special=add, parse_special=parse))
    assert ids[:1] == (TOKENS.index("<|bos|>"),) if add else True
    assert b"".join(small.spell(ids[add:])).decode() == text


def test_tokens_of_a_conversation_are_those_that_it_is_answered_to(small):
    messages = [Message(Role.USER, (TextPart("he"), TextPart("llo")))]
    asked = Tokenize(model="m", messages=messages, add_special=False)
    assert small.tokenize(asked) == small.prepare(batch(messages=messages)).prompt_ids


@pytest.mark.parametrize(("begin", "text"), [(True, "user:x<|im_end|>assistant:"), (False, "user:x<|im_end|>")])
def test_a_conversation_ends_with_the_begin_of_the_answer_or_without(tiny, begin, text):
    template = ChatTemplate(TEMPLATE + "{% if add_generation_prompt %}assistant:{% endif %}")
    asked = Tokenize(model="m", messages=[Message(Role.USER, "x")], add_special=False, rendering=Rendering(begin=begin))
    codec = TextCodec(tiny, template, 32)
    assert b"".join(codec.spell(codec.tokenize(asked))).decode() == text


def test_the_context_is_no_limit_to_counting(small):
    assert len(small.tokenize(Tokenize(model="m", text="a " * 1000))) > small.max_model_len


@pytest.mark.parametrize(
    ("ask", "param"),
    [
        (lambda codec: codec.tokenize(Tokenize(model="m", text="a\ud800")), "prompt"),
        (lambda codec: codec.tokenize(Tokenize(model="m", messages=[Message(Role.USER, "a\ud800")])), "messages"),
        (lambda codec: codec.spell([0, len(TOKENS)]), "tokens"),
        (lambda codec: codec.spell([-1]), "tokens"),
    ],
)
def test_bad_questions_name_their_field(small, ask, param):
    assert isinstance(small, Vocabulary)
    with pytest.raises(BadRequest) as caught:
        ask(small)
    assert caught.value.param == param


def test_a_conversation_needs_a_template(tiny):
    with pytest.raises(BadRequest, match="no chat template") as caught:
        TextCodec(tiny, None, 32).prepare(batch(messages=[Message(Role.USER, "hi")]))
    assert caught.value.param == "messages"


MESSAGES = st.lists(st.builds(Message, st.sampled_from(Role), st.text()), max_size=3)


@given(prompt=st.none() | st.text() | st.lists(st.integers(-5, 300)).map(tuple), messages=MESSAGES)
def test_any_request_is_prepared_or_refused_with_a_type(small, prompt, messages):
    try:
        made = small.prepare(batch(prompt, messages=messages))
    except InferenceError:
        return
    assert 0 < len(made.prompt_ids) < 32
    assert all(0 <= id < len(TOKENS) for id in made.prompt_ids)


def test_the_context_is_the_models_own_or_shorter(tmp_path, codec):
    assert codec.max_model_len == 8192
    path = write_gguf(tmp_path / "m.gguf", llama__context_length=64, **tokenizer_fields())
    assert TextCodec.from_gguf(path, max_model_len=16).max_model_len == 16
    assert TextCodec.from_gguf(path, max_model_len=10**6).max_model_len == 64
    with pytest.raises(ModelLoadError, match="no room"):
        TextCodec.from_gguf(path, max_model_len=1)


def test_a_file_without_a_template(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", llama__context_length=64, **tokenizer_fields())
    codec = TextCodec.from_gguf(path)
    assert codec.template is None
    assert codec.max_model_len == 64


def test_a_file_with_a_template_gets_its_own_tokens_names(tmp_path):
    fields = {**tokenizer_fields(), "tokenizer__chat_template": "{{ bos_token }}{{ eos_token }}"}
    path = write_gguf(tmp_path / "m.gguf", llama__context_length=64, **fields)
    assert TextCodec.from_gguf(path).template.render([]) == "<|bos|><|eos|>"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"llama__context_length": 64}, "kind `None`"),
        (tokenizer_fields(), r"llama\.context_length is missing"),
        ({**tokenizer_fields(), "llama__context_length": "long"}, r"llama\.context_length is missing"),
        ({**tokenizer_fields(), "llama__context_length": 1}, "no room"),
        ({**tokenizer_fields(), "llama__context_length": 64, "tokenizer__chat_template": "{% if %}"}, "chat template"),
    ],
)
def test_files_that_cannot_be_served(tmp_path, fields, message):
    with pytest.raises(ModelLoadError, match=message):
        TextCodec.from_gguf(write_gguf(tmp_path / "m.gguf", **fields))


def test_no_file(tmp_path):
    with pytest.raises(ModelLoadError) as caught:
        TextCodec.from_gguf(tmp_path / "nothing.gguf")
    assert str(tmp_path) not in str(caught.value)


@given(
    ids=st.lists(st.integers(0, len(TOKENS) - 1) | st.sampled_from([*b"ab", *"é".encode()])),
    stops=st.lists(st.text("abé", min_size=1, max_size=3), max_size=2),
    cuts=st.lists(st.integers(0, 9)),
)
def test_portions_do_not_change_the_answer(small, ids, stops, cuts):
    decoder, shown, rest = small.output_decoder(SamplingParams(stop=stops)), "", ids
    for cut in [*cuts, len(ids)]:
        shown += decoder.push(rest[:cut])[0]
        rest = rest[cut:]
    shown += decoder.finish()
    matcher = StopMatcher(stops)
    text, stopped = matcher.push(small.tokenizer.decode(ids))
    assert shown == text + matcher.flush()
    assert decoder.stopped == stopped
    assert decoder.finish() == ""


def test_tokens_are_counted_to_the_stop(small):
    decoder = small.output_decoder(SamplingParams(stop=["b"]))
    assert decoder.push(b"aabaa") == ("aa", True)
    assert decoder.tokens == 3
    assert decoder.push(b"a") == ("", True)
    assert (decoder.tokens, decoder.finish()) == (3, "")


def test_an_unfinished_character_and_an_unfinished_stop_come_at_the_end(tiny):
    decoder = OutputDecoder(Detokenizer(tiny), StopMatcher(["END"]))
    assert decoder.push([*b"EN", 0xC3]) == ("", False)
    assert decoder.finish() == "EN\ufffd"


def test_a_token_with_its_log_probability(small):
    token = small.token_logprob(0xE2, -1.5, [(EOS, -2.0)])
    assert (token.name, token.text, token.logprob) == ("\ufffd", b"\xe2", -1.5)
    assert token.top == (TokenLogprob(small.tokenizer.token_name(EOS), None, -2.0, id=EOS),)
    with pytest.raises(Internal):
        small.token_logprob(len(TOKENS), 0.0)


@pytest.mark.parametrize("length", [1, 31, 32, 33, 40])
def test_a_prompt_to_embed_may_fill_the_context(small, length):
    asked = ExecuteBatch(request_id="1", model="m", prompt=(1,) * length, embed=True)
    if length > 32:
        with pytest.raises(ContextLengthExceeded) as caught:
            small.prepare(asked)
        assert (caught.value.tokens, caught.value.max_tokens) == (length, 32)
    else:
        prepared = small.prepare(asked)
        # It costs its prompt and no more.
        assert (prepared.prompt_ids, prepared.estimated_tokens, prepared.sampling.max_tokens) == (
            (1,) * length,
            length,
            None,
        )


@pytest.mark.parametrize("prompt", ["", (), (len(TOKENS),), (1,) * 31 + (-1,)])
def test_a_prompt_to_embed_is_checked_as_any_other(small, prompt):
    with pytest.raises(BadRequest) as caught:
        small.prepare(ExecuteBatch(request_id="1", model="m", prompt=prompt, embed=True))
    assert caught.value.param == "prompt"


def test_an_empty_stop_is_refused(small):
    with pytest.raises(BadRequest):
        small.output_decoder(SamplingParams(stop=[""]))
