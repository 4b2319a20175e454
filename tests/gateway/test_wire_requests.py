"""Requests: what is taken, what is refused, and that nothing else can come out of a decoder."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import BadRequest, ExecuteBatch, ImageBase64, ImageUrl, Role, SamplingParams, TextPart, TokenUsage
from atomr_trio.gateway import wire

USER = {"role": "user", "content": "hi"}
CHAT = {"model": "m", "messages": [USER]}
PLAIN = {"model": "m", "prompt": "x"}


def chat(**fields):
    return wire.chat_generation(wire.decode_chat(json.dumps({**CHAT, **fields}).encode()), "chatcmpl-1")


def plain(**fields):
    request = wire.decode_completion(json.dumps({**PLAIN, **fields}).encode())
    return wire.completion_generation(request, "cmpl-1", max_choices=8)


def refused(ask, **fields):
    with pytest.raises(BadRequest) as caught:
        ask(**fields)
    return caught.value


def test_everything_that_is_served_arrives():
    generation = chat(
        n=3, stream=True, stream_options={"include_usage": True, "include_obfuscation": True}, max_completion_tokens=9,
        max_tokens=5, temperature=1, top_p=0.5, top_k=40, min_p=0.1, min_tokens=2, stop=["a", "b"], stop_token_ids=[3],
        ignore_eos=True, seed=-(2**63), presence_penalty=-2, frequency_penalty=0.5, repetition_penalty=1.2,
        logit_bias={"7": -100, "0": 0.5}, logprobs=True, top_logprobs=20,
        user="u", metadata={"k": "v"}, store=True, service_tier="auto",
        parallel_tool_calls=True, unknown_field={"deep": [1]},
    )  # fmt: skip
    assert (generation.n, generation.stream, generation.include_usage, generation.prompt_param) == (
        3,
        True,
        True,
        "messages",
    )
    (batch,) = generation.prompts
    assert batch.sampling == SamplingParams(
        temperature=1.0, top_p=0.5, top_k=40, min_p=0.1, max_tokens=9, min_tokens=2, stop=("a", "b"),
        stop_token_ids=(3,), ignore_eos=True, seed=-(2**63), presence_penalty=-2.0, frequency_penalty=0.5,
        repetition_penalty=1.2, logit_bias={0: 0.5, 7: -100.0}, logprobs=True, top_logprobs=20,
    )  # fmt: skip
    assert (batch.request_id, batch.model, batch.stream) == ("chatcmpl-1", "m", True)


def test_messages():
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "name": "ann", "content": [
            {"type": "text", "text": "a"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}},
        ]},
        {"role": "assistant", "content": None, "refusal": "no"},
        {"role": "assistant", "tool_calls": []},
        {"role": "tool", "content": "4", "tool_call_id": "x"},
        {"role": "function", "content": "4", "name": "f"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "never"}]},
    ]  # fmt: skip
    (batch,) = chat(messages=messages).prompts
    assert [message.role for message in batch.messages] == [
        Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.ASSISTANT, Role.TOOL, Role.TOOL, Role.ASSISTANT,
    ]  # fmt: skip
    assert batch.messages[1].content == (
        TextPart("a"),
        ImageBase64("image/png", "AAAA"),
        ImageUrl("https://example.org/x.png"),
    )
    assert [message.text for message in batch.messages if message.role is Role.ASSISTANT] == ["no", "", "never"]


REFUSED_MESSAGES = [
    ({"role": "user"}, "messages[0].content"),
    ({"role": "user", "content": None}, "messages[0].content"),
    ({"role": "user", "content": 5}, "messages[0].content"),
    ({"role": "nobody", "content": "x"}, "messages[0].role"),
    ({"content": "x"}, "messages[0].role"),
    ({"role": "user", "content": [{"type": "video"}]}, "messages[0].content[0].type"),
    ({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, "messages[0].content[0]"),
    ({"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "file"}]}, "messages[0].content[1]"),
    ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text"),
    ({"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}, "messages[0].tool_calls[0].type"),
]


@pytest.mark.parametrize(("message", "param"), REFUSED_MESSAGES)
def test_a_wrong_message_is_named(message, param):
    error = refused(chat, messages=[message])
    assert error.param == param
    assert f"`{param}`" in error.message


REFUSED_FIELDS = [
    ("messages", []), ("messages", {}), ("model", None), ("model", 5), ("n", 0), ("n", 129), ("n", 1.5), ("n", "2"),
    ("n", True), ("n", 10**40), ("n", 10**4000), ("temperature", -0.1), ("temperature", 2.1), ("temperature", "hot"),
    ("top_p", 1.1), ("top_k", -2), ("min_p", 2), ("max_tokens", 0), ("max_tokens", -1), ("max_tokens", 2**40),
    ("max_completion_tokens", 0), ("min_tokens", -1), ("stop", ""), ("stop", [""]), ("stop", ["a"] * 5), ("stop", 5),
    ("stop", [None]), ("stop_token_ids", [-1]), ("seed", 2**63), ("seed", 0.5), ("seed", "x"), ("metadata", {"a": 5}),
    ("metadata", {"a" * 65: "b"}), ("metadata", {str(n): "" for n in range(17)}), ("frequency_penalty", 2.5),
    ("presence_penalty", -3), ("repetition_penalty", 0), ("repetition_penalty", 101), ("repetition_penalty", "x"),
    ("logit_bias", {"1": 101}), ("logit_bias", {"x": 1}), ("logit_bias", {"-1": 1}), ("logit_bias", {"1": None}),
    ("logit_bias", {str(2**31): 1}), ("logit_bias", {str(n): 0 for n in range(1025)}), ("logit_bias", [[1, 1]]),
    ("top_logprobs", 21), ("top_logprobs", -1), ("logprobs", 3), ("stream", "yes"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), REFUSED_FIELDS)
def test_a_wrong_value_is_named(name, value):
    error = refused(chat, **{name: value})
    assert (error.param or "").split("[")[0] == name
    assert f"`{name}" in error.message
    assert "$" not in error.message


UNSUPPORTED = {
    "include_stop_str_in_output": (True, [False]),
    "skip_special_tokens": (False, [True]), "truncate_prompt_tokens": (5, []),
}  # fmt: skip
UNSUPPORTED_IN_CHAT = {
    **UNSUPPORTED,
    "audio": ({"voice": "x"}, []), "echo": (True, [False]), "modalities": (["text", "audio"], [["text"]]),
    "chat_template": ("x", []), "verbosity": ("low", ["medium"]),
    "web_search_options": ({}, []), "moderation": ({}, []),
}  # fmt: skip
UNSUPPORTED_IN_PLAIN = {
    **UNSUPPORTED,
    "suffix": ("x", [""]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("ask", "name", "wanted", "neutral"),
    [
        (ask, name, *values)
        for ask, table in [(chat, UNSUPPORTED_IN_CHAT), (plain, UNSUPPORTED_IN_PLAIN)]
        for name, values in table.items()
    ],
)
def test_what_is_not_served_is_refused_when_it_asks_for_something(ask, name, wanted, neutral):
    error = refused(ask, **{name: wanted})
    assert (error.param, error.message) == (name, f"`{name}` is not supported by this server")
    for value in [None, *neutral]:
        ask(**{name: value})


def test_stream_options_need_a_stream():
    for stream in [None, False]:
        assert refused(chat, stream=stream, stream_options={}).param == "stream_options"
        assert refused(plain, stream=stream, stream_options={}).param == "stream_options"
    error = refused(chat, stream=True, stream_options={"continuous_usage_stats": True})
    assert error.param == "stream_options.continuous_usage_stats"
    assert not chat(stream=True, stream_options={}).include_usage


@pytest.mark.parametrize(
    ("ask", "fields", "expected"),
    [
        (chat, {}, (False, 0)),
        (chat, {"logprobs": False, "top_logprobs": 0}, (False, 0)),
        (chat, {"logprobs": True}, (True, 0)),
        (chat, {"logprobs": True, "top_logprobs": 5}, (True, 5)),
        (plain, {}, (False, 0)),
        (plain, {"logprobs": 0}, (True, 0)),
        (plain, {"logprobs": 5}, (True, 5)),
    ],
)
def test_log_probabilities(ask, fields, expected):
    generation = ask(**fields)
    sampling = generation.prompts[0].sampling
    assert (sampling.logprobs, sampling.top_logprobs) == expected
    assert generation.logprobs == expected[0]


def test_the_best_tokens_need_log_probabilities():
    assert refused(chat, top_logprobs=1).param == "top_logprobs"
    assert refused(chat, top_logprobs=1, logprobs=False).param == "top_logprobs"
    for value in (21, -1, True):
        assert refused(plain, logprobs=value).param == "logprobs"


def test_min_tokens_must_fit_into_max_tokens():
    assert refused(chat, min_tokens=5, max_tokens=4).param == "min_tokens"
    assert refused(plain, min_tokens=17).param == "min_tokens"


def test_a_nucleus_of_nothing_is_greedy():
    assert 0 < chat(top_p=0).prompts[0].sampling.top_p < 1e-6


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [(1, 2)]),
        ([[1], [2, 3]], [(1,), (2, 3)]),
    ],
)
def test_the_four_kinds_of_prompt(prompt, expected):
    generation = plain(prompt=prompt)
    assert [batch.prompt for batch in generation.prompts] == expected
    assert generation.prompts[0].sampling.max_tokens == 16
    assert generation.prompt_param == "prompt"


@pytest.mark.parametrize(
    "prompt", [None, "", [], [""], ["a", ""], [[]], [[1], []], ["a", 1], [1, [2]], [-1], [1.5], {}, 5]
)
def test_a_prompt_that_is_empty_or_mixed(prompt):
    assert refused(plain, prompt=prompt).param.startswith("prompt")


def test_a_request_has_a_bounded_number_of_choices():
    assert refused(plain, prompt=["a", "b", "c"], n=3).param == "prompt"
    assert len(plain(prompt=["a", "b"], n=4).prompts) == 2


@pytest.mark.parametrize("decode", [wire.decode_chat, wire.decode_completion])
@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b"{", b"\xff", b"\xef\xbb\xbf{}", b'{"model":NaN}', b'{"a":1e999}', b'{"tools":1e999}',
        b'{"model":"\\ud800"}', b'{"model":"\xed\xa0\x80"}', b"[" * 100_000, b'{"x":' * 100_000,
        b'{"tools":' + b"[" * 100_000, b'{"user":"' + b"x" * 1_000_000,
    ],
)  # fmt: skip
def test_what_is_not_a_request_is_a_bad_request(decode, body):
    with pytest.raises(BadRequest) as caught:
        decode(body)
    assert 0 < len(caught.value.message) < 400


def test_the_last_of_two_equal_keys_counts():
    request = wire.decode_chat(b'{"model":"a","model":"b","messages":[{"role":"user","content":"x"}]}')
    assert request.model == "b"


def test_a_long_wrong_value_is_not_quoted_in_full():
    error = refused(chat, messages=[{"role": "x" * 100_000, "content": ""}])
    assert len(error.message) < 400


def test_a_wrong_value_that_looks_like_a_path_does_not_confuse():
    assert refused(chat, messages=[{"role": " - at `$.model`", "content": ""}]).param == "messages[0].role"


# Fuzz: whatever comes in, a typed error or a valid batch comes out.

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(["user", "assistant", "text", "image_url", "none", "auto", "data:image/png;base64,AA"])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "url", "image_url"]), inner, max_size=4)
    ),
    max_leaves=8,
)
names = st.sampled_from(
    sorted({*wire.ChatRequest.__struct_fields__, *wire.CompletionRequest.__struct_fields__, "other"})
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool"]) | values}, optional={"content": values}
    ),
    max_size=3,
)
requests = st.builds(
    lambda base, extra: {**base, **extra},
    st.fixed_dictionaries({"model": st.just("m")}, optional={"messages": messages, "prompt": values}),
    st.dictionaries(names, values, max_size=4),
)


@given(fields=requests)
def test_any_json_object_is_a_request_or_a_typed_error(fields):
    body = json.dumps(fields).encode()
    for decode, translate in [
        (wire.decode_chat, lambda request: wire.chat_generation(request, "id")),
        (wire.decode_completion, lambda request: wire.completion_generation(request, "id", max_choices=64)),
    ]:
        try:
            generation = translate(decode(body))
        except BadRequest as error:
            wire.to_json({"message": error.message, "param": error.param})
        else:
            assert all(isinstance(batch, ExecuteBatch) for batch in generation.prompts)
            wire.to_json([batch.prompt for batch in generation.prompts])


@given(
    body=st.binary(max_size=60)
    | st.builds(lambda fields, at, junk: splice(fields, at, junk), requests, st.integers(0, 200), st.binary(max_size=3))
)
def test_any_bytes_are_a_request_or_a_typed_error(body):
    for decode in [wire.decode_chat, wire.decode_completion]:
        try:
            decode(body)
        except BadRequest as error:
            wire.to_json({"message": error.message, "param": error.param})


def splice(fields, at, junk):
    body = json.dumps(fields).encode()
    return body[:at] + junk + body[at + 1 :]


# Choices.


@given(prompts=st.integers(1, 5), n=st.integers(1, 9), seed=st.none() | st.integers(-(2**63), 2**63 - 1))
def test_choices_are_prompt_major_with_their_own_ids_and_seeds(prompts, n, seed):
    batches = [
        ExecuteBatch(request_id="id", model="m", prompt=str(number), sampling=SamplingParams(seed=seed))
        for number in range(prompts)
    ]
    choices = wire.expand(batches, n)
    assert [choice.prompt for choice in choices] == [str(number) for number in range(prompts) for _ in range(n)]
    assert len({choice.request_id for choice in choices}) == prompts * n
    for number in range(prompts):
        seeds = [choice.sampling.seed for choice in choices[number * n : (number + 1) * n]]
        if seed is None:
            assert set(seeds) == {None}
        else:
            assert seeds[0] == seed
            assert len(set(seeds)) == n
            assert all(-(2**63) <= each < 2**63 for each in seeds)


@given(st.lists(st.lists(st.integers(0, 99), min_size=2, max_size=2), min_size=1, max_size=4))
def test_usage_counts_each_prompt_once(outputs):
    usages = [TokenUsage(10 + at, out, 0, 1) for at, pair in enumerate(outputs) for out in pair]
    total = wire.total_usage(usages, 2)
    assert total.input_tokens == sum(10 + at for at in range(len(outputs)))
    assert total.output_tokens == sum(sum(pair) for pair in outputs)
    assert total.cached_tokens == len(outputs)
