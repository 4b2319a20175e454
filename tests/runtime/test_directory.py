"""What a front end asks of the runtime besides answers."""

import threading

import pytest

from atomr_trio.core import (
    BadRequest,
    Deployment,
    Message,
    ModelNotFound,
    ModelRunner,
    Role,
    TextPart,
    Tokenize,
    Unsupported,
)
from atomr_trio.runtime import Cluster


class Bytes:
    """A codec whose tokens are bytes, and who remembers in which threads it was asked."""

    max_model_len = 64

    def __init__(self):
        self.threads = []

    def prepare(self, batch):
        return batch

    def tokenize(self, question):
        self.threads.append(threading.current_thread())
        return tuple((question.text or question.messages[0].text).encode())

    def spell(self, ids):
        self.threads.append(threading.current_thread())
        if max(ids, default=0) > 255:
            raise BadRequest("no such token", param="tokens")
        return tuple(bytes([id]) for id in ids)


class Runner(ModelRunner):
    codec = Bytes()

    async def execute(self, batch, out):
        raise NotImplementedError


async def create(_deployment):
    return Runner()


async def test_tokens_are_told_in_a_thread_where_there_are_many():
    async with Cluster.open(create_runner=create) as cluster:
        await cluster.deploy(Deployment(name="m", model="m", runtime="bytes"))
        codec, directory = Runner.codec, cluster.directory
        assert await directory.tokenize(Tokenize(model="m", text="ab")) == (97, 98)
        assert await directory.spell("m", (97, 98)) == (b"a", b"b")
        assert set(codec.threads) == {threading.current_thread()}
        codec.threads.clear()
        long = Tokenize(model="m", messages=[Message(Role.USER, "ab" * 5000)])
        assert await directory.tokenize(long) == (97, 98) * 5000
        assert len(await directory.spell("m", (97, 98) * 5000)) == 10_000
        parts = Message(Role.USER, (TextPart("ab" * 5000), TextPart("c")))
        await directory.tokenize(Tokenize(model="m", messages=[parts]))
        assert threading.current_thread() not in codec.threads
        with pytest.raises(BadRequest):
            await directory.spell("m", (256,))
        with pytest.raises(ModelNotFound):
            await directory.tokenize(Tokenize(model="other"))


async def test_a_runtime_without_a_vocabulary_says_so():
    async with Cluster.open() as cluster:
        await cluster.deploy(Deployment(name="m", model="m", runtime="echo"))
        with pytest.raises(Unsupported, match="tokenize on runtime echo"):
            await cluster.directory.tokenize(Tokenize(model="m", text="x"))
        with pytest.raises(Unsupported, match="detokenize on runtime echo"):
            await cluster.directory.spell("m", (1,))
