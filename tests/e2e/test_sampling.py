"""Sampling over HTTP with the official client: what is asked for is done and told, and nothing is an internal error."""

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .kit import MODEL

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "The capital of France is Paris."


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def chat(client, extra=None, **fields):
    values = {"model": MODEL, "messages": QUESTION, "temperature": 0, **fields}
    return client.chat.completions.create(**values, extra_body=extra)


def test_log_probabilities_of_a_chat(client):
    reply = chat(client, logprobs=True, top_logprobs=20).choices[0]
    content = reply.logprobs.content
    assert b"".join(bytes(token.bytes or ()) for token in content).decode() == reply.message.content == ANSWER
    for token in content:
        # Greedy: the token said is the best.
        assert (token.token, token.logprob) == (token.top_logprobs[0].token, token.top_logprobs[0].logprob)
        values = [each.logprob for each in token.top_logprobs]
        assert values == sorted(values, reverse=True)
        assert len(values) == 20
    # The end of the turn is a token of the answer, too, and has no text.
    assert content[-1].bytes is None
    stream = chat(client, logprobs=True, top_logprobs=20, stream=True)
    choices = [chunk.choices[0] for chunk in stream]
    told = [token for choice in choices if choice.logprobs for token in choice.logprobs.content]
    assert [token.token for token in told] == [token.token for token in content]
    assert [token.logprob for token in told] == pytest.approx([token.logprob for token in content], abs=1e-3)


def test_log_probabilities_of_a_completion(client):
    fields = {"model": MODEL, "prompt": "1, 2, 3, 4, 5,", "temperature": 0, "max_tokens": 8}
    choice = client.completions.create(**fields, logprobs=3).choices[0]
    told = choice.logprobs
    assert "".join(told.tokens) == choice.text == " 6, 7, 8"
    assert [choice.text[at:].startswith(token) for at, token in zip(told.text_offset, told.tokens, strict=True)]
    assert [len(top) for top in told.top_logprobs] == [3] * 8
    for token, logprob, top in zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=True):
        assert top[token] == logprob == max(top.values())
    bare = client.completions.create(**fields, logprobs=0).choices[0].logprobs
    assert [list(top) for top in bare.top_logprobs] == [[token] for token in bare.tokens]


def test_a_bias_and_penalties_change_the_answer_and_not_its_log_probabilities(client):
    first = chat(client, logprobs=True, top_logprobs=2).choices[0].logprobs.content[0]
    reply = chat(client, {"repetition_penalty": 1.5}, logit_bias={"2330": 100}, logprobs=True, max_tokens=2)
    told = reply.choices[0].logprobs.content
    assert told[0].token != first.token
    assert told[0].logprob < first.logprob
    penalised = chat(client, frequency_penalty=2, presence_penalty=2, max_tokens=60, extra={"ignore_eos": True})
    plain = chat(client, max_tokens=60, extra={"ignore_eos": True})
    assert penalised.choices[0].message.content != plain.choices[0].message.content
    assert penalised.usage.completion_tokens == plain.usage.completion_tokens == 60


def test_ends(client):
    content = chat(client, logprobs=True).choices[0].logprobs.content
    longer = chat(client, {"min_tokens": 20}, max_tokens=24)
    assert longer.usage.completion_tokens >= 20
    assert longer.choices[0].message.content.startswith(ANSWER)
    assert len(content) == 8


combinations = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0, 1e-9, 1, 2, 3]),
        "top_p": st.sampled_from([0, 1e-9, 0.5, 1, 1.1]),
        "top_k": st.sampled_from([-2, -1, 0, 1, 10**6]),
        "min_p": st.sampled_from([0, 0.1, 1]),
        "repetition_penalty": st.sampled_from([0, 0.01, 1, 1.3, 100, -1]),
        "presence_penalty": st.sampled_from([-2, 0, 2, 2.1]),
        "frequency_penalty": st.sampled_from([-2, 0, 2, None]),
        "logit_bias": st.dictionaries(
            st.sampled_from(["0", "2", "49151", "49152", "-1", "x"]), st.sampled_from([-100, 0, 100, 101]), max_size=3
        ),
        "logprobs": st.sampled_from([None, True, False, 0, 5, 21]),
        "top_logprobs": st.sampled_from([None, 0, 5, 20, 21]),
        "min_tokens": st.sampled_from([0, 2, 3, 4]),
        "ignore_eos": st.booleans(),
        "stop_token_ids": st.sampled_from([[], [2], list(range(256)), [49152], [-1]]),
        "stop": st.sampled_from([None, "e", [" the", "a"]]),
        "seed": st.sampled_from([None, 0, -(2**63), 2**63 - 1]),
        "n": st.sampled_from([1, 2]),
        "stream": st.booleans(),
    },
)


@settings(max_examples=40)
@given(fields=combinations, kind=st.sampled_from(["chat", "plain"]))
def test_no_combination_is_an_internal_error(server, fields, kind):
    body = {"model": MODEL, "max_tokens": 3, **fields}
    route = "/v1/chat/completions" if kind == "chat" else "/v1/completions"
    body |= {"messages": QUESTION} if kind == "chat" else {"prompt": "Once"}
    reply = server.http.post(route, json=body)
    if reply.status_code == 200:
        assert '"error"' not in reply.text
        return
    assert reply.status_code == 400
    assert reply.json()["error"]["param"].partition("[")[0] in fields


def test_a_seed_gives_the_same_text_whoever_else_asks(server):
    fields = {"temperature": 1.2, "seed": 2**63 - 5, "max_tokens": 12, "frequency_penalty": 0.5, "ignore_eos": True}
    alone = server.complete("Once upon", **fields).json()["choices"][0]["text"]
    both = server.complete(["Once upon", "A list of"], **fields, logprobs=5).json()["choices"]
    assert both[0]["text"] == alone
    other = server.complete("Once upon", **{**fields, "seed": 2**31 - 5}).json()["choices"][0]["text"]
    assert other != alone
