"""`atomr-trio serve` of a Hugging Face folder, and of random weights of any shape."""

import json

import numpy as np
import pytest

from tests.checkpoints import config_of, random_tensors, write_folder, write_tokenizer
from tests.engine.reference_decoder import reference_logits

from .kit import served


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    config = config_of("qwen3")
    tensors = random_tensors(config)
    path = write_folder(tmp_path_factory.mktemp("models") / "tiny-1.5b", config, tensors, shards=2, kind="F32")
    return write_tokenizer(path), config, tensors


@pytest.fixture(scope="module")
def server(made):
    with served(str(made[0]), "--dtype", "float32", "--max-concurrent", "2") as running:
        yield running


def greedy(config, tensors, ids, count):
    ids = list(ids)
    for _ in range(count):
        ids.append(int(reference_logits(config, tensors, ids)[-1].argmax()))
    return ids[-count:]


def test_a_conversation_with_a_folder(server, made):
    _, config, tensors = made
    assert [model["id"] for model in server.http.get("/v1/models").json()["data"]] == ["tiny-1.5b"]
    body = {"model": "tiny-1.5b", "temperature": 0, "max_tokens": 8, "ignore_eos": True}
    body["messages"] = [{"role": "user", "content": "hel"}]
    reply = server.http.post("/v1/chat/completions", json=body).json()
    assert reply["usage"] == {**reply["usage"], "prompt_tokens": 4, "completion_tokens": 8}
    wanted = greedy(config, tensors, [258, 260, 257, 261], 8)
    assert reply["choices"][0]["message"]["content"] == text_of(wanted)


def text_of(ids):
    spelled = {256: b"he", 257: b"hel"}
    letters = bytes_by_id()
    return b"".join(spelled.get(id, letters.get(id, b"")) for id in ids).decode(errors="replace")


def bytes_by_id():
    from tokenizers import pre_tokenizers

    from atomr_trio.text._bytelevel import to_bytes

    return {at: to_bytes(letter) for at, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def test_random_weights_of_any_shape_without_a_tokenizer(tmp_path):
    path = tmp_path / "shape"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config_of("gemma3")))
    with served(str(path / "config.json"), "--load-format", "dummy", "--max-concurrent", "1") as server:
        body = {"model": "shape", "prompt": "hello", "max_tokens": 5, "temperature": 0, "ignore_eos": True}
        reply = server.http.post("/v1/completions", json=body).json()
    assert reply["usage"]["completion_tokens"] == 5
    assert reply["usage"]["prompt_tokens"] == len(b"hello")
    assert np.isfinite(len(reply["choices"][0]["text"]))
