"""The right tokens, through the whole chain, alone and together."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest


@pytest.fixture(scope="module")
def cases(data_dir):
    return json.loads((data_dir / "smollm2-135m-instruct.json").read_text())["cases"]


def answer(server, case):
    limit = {"max_tokens": case["safe_length"], "temperature": 0}
    if case["kind"] == "chat":
        body = {"model": "smollm2-135m-instruct", "messages": case["prompt"], **limit}
        reply = server.http.post("/v1/chat/completions", json=body).json()
        return reply["choices"][0]["message"]["content"], reply["usage"]
    reply = server.complete(case["prompt"], **limit).json()
    return reply["choices"][0]["text"], reply["usage"]


@pytest.mark.parametrize("number", range(10))
def test_each_case_alone(server, cases, number):
    text, usage = answer(server, cases[number])
    assert text == cases[number]["safe_text"]
    assert usage["prompt_tokens"] == len(cases[number]["prompt_ids"])


def test_all_cases_at_once(server, cases):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda case: answer(server, case)[0], cases))
    assert answers == [case["safe_text"] for case in cases]


def test_prompts_of_token_ids_are_the_same_prompts(server, cases):
    case = cases[0]
    text, _ = answer(server, {**case, "prompt": case["prompt_ids"]})
    assert text == case["safe_text"]
