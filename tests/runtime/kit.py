"""A runner that tests script, and a cluster around it."""

from contextlib import asynccontextmanager

import trio

from atomr_trio.core import Deployment, ExecuteBatch, InferenceError, ModelRunner, Serving, TokenChunk
from atomr_trio.runtime import Cluster


class Scripted(ModelRunner):
    """Executes the coroutine function that the prompt names; its session can be made to fail from outside."""

    def __init__(self):
        self.scripts = {"hello": self.hello, "hang": self.hang, "talk": self.talk}
        self.sessions = 0
        self.running = set()
        self.cancelled = []
        self.load_failures = []
        self.gate = trio.Event()
        self.gate.set()
        self._fail = trio.Event()
        self._failure = None

    def break_session(self, failure):
        self._failure = failure
        self._fail.set()

    @asynccontextmanager
    async def session(self):
        self.sessions += 1
        await self.gate.wait()
        if self.load_failures:
            raise self.load_failures.pop(0)
        self._fail = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            yield
            nursery.cancel_scope.cancel()

    async def _watch(self):
        await self._fail.wait()
        raise self._failure

    async def execute(self, batch, out):
        self.running.add(batch.request_id)
        try:
            await self.scripts[batch.prompt](batch, out)
        except trio.Cancelled:
            self.cancelled.append(batch.request_id)
            raise
        finally:
            self.running.discard(batch.request_id)

    async def hello(self, batch, out):
        for word in ("hello", " ", "world"):
            await out.send(TokenChunk(text_delta=word))

    async def hang(self, batch, out):
        await trio.sleep_forever()

    async def talk(self, batch, out):
        while True:
            await out.send(TokenChunk(text_delta="."))
            await trio.sleep(1)


@asynccontextmanager
async def scripted_cluster(replicas=1, *, wait=True, runners=None, **serving):
    made, unused = runners if runners is not None else [], list(runners or ())

    async def create(_deployment):
        # Without the worker thread: the autojump clock does not see threads.
        if unused:
            return unused.pop(0)
        made.append(Scripted())
        return made[-1]

    async with Cluster.open(create_runner=create) as cluster:
        deployment = Deployment(name="m", model="m", runtime="scripted", replicas=replicas, serving=Serving(**serving))
        await cluster.deploy(deployment, wait=wait)
        yield cluster, made


def batch(prompt, request_id="r", model="m"):
    return ExecuteBatch(request_id=request_id, model=model, prompt=prompt)


async def outcome_of(cluster, prompt, request_id="r"):
    """The text, or the error, of one request."""
    try:
        return (await cluster.execute(batch(prompt, request_id))).text
    except InferenceError as error:
        return error
