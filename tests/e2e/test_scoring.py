"""Texts that are scored, as evaluation harnesses do it, beside what the reference says of them."""

import json

import openai
import pytest

from .kit import MODEL


@pytest.fixture(scope="module")
def cases(data_dir):
    return json.loads((data_dir / "smollm2-135m-instruct.json").read_text())["cases"]


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def complete(client, prompt, extra=None, **fields):
    return client.completions.create(model=MODEL, prompt=prompt, temperature=0, extra_body=extra, **fields)


@pytest.mark.parametrize("number", range(0, 10, 3))
def test_an_echoed_prompt_has_the_log_probabilities_of_the_reference(client, cases, number):
    case = cases[number]
    reply = complete(client, case["prompt_ids"], echo=True, logprobs=1, max_tokens=0)
    (choice,) = reply.choices
    first, *scores = choice.logprobs.token_logprobs
    assert first is None
    assert scores == pytest.approx(case["prompt_logprobs"][1:], abs=0.01)
    for token, score, best in zip(choice.logprobs.tokens[1:], scores, choice.logprobs.top_logprobs[1:], strict=True):
        # What a harness looks at to know whether the text is what a greedy model says.
        assert best[token] == score <= max(best.values())
        assert len(best) <= 2
    assert (choice.finish_reason, reply.usage.completion_tokens) == ("length", 0)
    assert "".join(choice.logprobs.tokens) == choice.text


def test_what_follows_an_echo_goes_on_from_it_streamed_too(client, cases):
    case = cases[0]
    fields = {"echo": True, "logprobs": 3, "max_tokens": 3}
    whole = complete(client, case["prompt"], **fields).choices[0]
    assert whole.text.startswith(case["prompt"] + " Paris")
    for token, offset in zip(whole.logprobs.tokens, whole.logprobs.text_offset, strict=True):
        assert whole.text[offset:].startswith(token)
    after = len(case["prompt_ids"])
    assert whole.logprobs.token_logprobs[after:] == pytest.approx(case["greedy_logprobs"][:3], abs=0.01)
    parts = [chunk.choices[0] for chunk in complete(client, case["prompt"], **fields, stream=True)]
    assert "".join(part.text for part in parts) == whole.text
    told = [one for part in parts if part.logprobs for one in part.logprobs.token_logprobs]
    assert told[1:] == pytest.approx(whole.logprobs.token_logprobs[1:], abs=1e-3)


def test_prompt_log_probabilities_and_ids(client, cases):
    case = cases[0]
    extra = {"prompt_logprobs": 5, "return_token_ids": True}
    (choice,) = complete(client, case["prompt"], extra, max_tokens=4).choices
    assert choice.prompt_token_ids == case["prompt_ids"]
    assert choice.token_ids == case["greedy_ids"][:4]
    first, *places = choice.prompt_logprobs
    assert first is None
    for place, id, score in zip(places, case["prompt_ids"][1:], case["prompt_logprobs"][1:], strict=True):
        assert place[str(id)]["logprob"] == pytest.approx(score, abs=0.01)
        ranks = sorted(one["rank"] for one in place.values() if one["rank"] is not None)
        assert ranks == [1, 2, 3, 4, 5]
        assert len(place) == (6 if place[str(id)]["rank"] is None else 5)
    messages = [{"role": "user", "content": "Hi"}]
    chat = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=2, temperature=0, extra_body=extra)
    assert len(chat.prompt_logprobs) == len(chat.prompt_token_ids) == chat.usage.prompt_tokens
    assert len(chat.choices[0].token_ids) == 2


def test_the_best_of_several_is_the_likeliest(client):
    fields = {"prompt": "Once upon a time", "seed": 7, "max_tokens": 8, "logprobs": 0}
    drawn = client.completions.create(model=MODEL, n=4, **fields).choices
    means = {choice.text: sum(choice.logprobs.token_logprobs) / 8 for choice in drawn}
    best = client.completions.create(model=MODEL, n=1, best_of=4, **fields)
    assert best.choices[0].text == max(means, key=means.__getitem__)
    assert best.usage.completion_tokens == 32
