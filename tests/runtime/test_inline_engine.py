"""Real engines under generated histories: whoever comes, leaves or fails, each answer ends once, with its own tokens.

The engines are inline, so that the clock is simulated: a step takes half a second of it.
"""

from contextlib import asynccontextmanager
from itertools import count

import pytest
import trio
import trio.testing
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.core import (
    CudaContextPoisoned,
    Deployment,
    ExecuteBatch,
    ModelRunner,
    SamplingParams,
    Serving,
    TokenChunk,
    Unrecoverable,
)
from atomr_trio.engine.engine import Engine
from atomr_trio.engine.frames import SequenceRequest
from atomr_trio.engine.settings import EngineSettings
from atomr_trio.runtime import Cluster
from atomr_trio.runtime.messages import Drain

STEP_S = 0.5
NUMBERS = count()


def sequence(batch):
    sampling = batch.sampling
    return SequenceRequest(
        id=next(NUMBERS),
        prompt_ids=list(batch.prompt),
        generated=list(batch.generated),
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        seed=sampling.seed,
    )


class Inline(ModelRunner):
    """Runs requests on an engine of this process. ``fail`` ends the session, ``ail`` one step."""

    resumable = True

    def __init__(self, engine):
        self.engine = engine
        self.engine.on_dispatch = self._on_dispatch
        self._ailment = None
        self._streams = {}
        self._work = trio.Event()
        self._broken = trio.Event()
        self._failure = None

    def fail(self, failure):
        self._failure = failure
        self._broken.set()

    def ail(self, failure):
        self._ailment = failure

    def _on_dispatch(self):
        ailment, self._ailment = self._ailment, None
        if ailment is not None:
            raise ailment

    @asynccontextmanager
    async def session(self):
        self._broken = trio.Event()
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            nursery.start_soon(self._step)
            yield
            nursery.cancel_scope.cancel()

    async def _watch(self):
        await self._broken.wait()
        raise self._failure

    async def _step(self):
        while True:
            if self.engine.idle:
                self._work = trio.Event()
                await self._work.wait()
            await trio.sleep(STEP_S)
            for output in self.engine.step().outputs:
                out, done = self._streams[output.id]
                out.push(TokenChunk(token_ids=tuple(output.token_ids), finish_reason=output.finish_reason))
                if output.finish_reason is not None:
                    done.set()

    async def execute(self, batch, out):
        wanted, done = sequence(batch), trio.Event()
        self._streams[wanted.id] = out, done
        self.engine.add(wanted)
        self._work.set()
        try:
            await done.wait()
        finally:
            # A process that dies takes its sequences along; this engine lives through all sessions.
            self.engine.abort(wanted.id)


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    programs = str(tmp_path_factory.mktemp("programs"))
    made = [
        Engine(
            EngineSettings(
                load_format="dummy",
                dtype="float32",
                max_num_seqs=4,
                max_model_len=48,
                page_size=4,
                kv_tokens=96,
                prefill_chunk=16,
                prefill_chunk_busy=8,
                cache_dir=programs,
            )
        )
        for _ in range(2)
    ]
    for engine in made:
        engine.load()
    yield made
    for engine in made:
        engine.close()


@asynccontextmanager
async def cluster_of(runners):
    unused = list(runners)

    async def create(_deployment):
        return unused.pop(0)

    async with Cluster.open(create_runner=create) as cluster:
        deployment = Deployment(
            name="m", model="m", runtime="inline", replicas=len(runners), serving=Serving(max_concurrent=4)
        )
        await cluster.deploy(deployment)
        yield cluster


def generated_alone(engine, batch):
    wanted = sequence(batch)
    engine.add(wanted)
    tokens = []
    while not engine.idle:
        for output in engine.step().outputs:
            tokens += output.token_ids
    return tokens


def expected(engine, plan):
    engine.on_dispatch = None
    return [generated_alone(engine, batch) for _, batch, _ in plan]


async def live(cluster, start, batch, leave_after, ends):
    """Ask at a time, and leave after a while, or stay."""
    await trio.sleep(start)
    with trio.move_on_after(float("inf") if leave_after is None else leave_after):
        async with cluster.submit(await cluster.directory.prepare(batch)) as stream:
            received, finishes = [], []
            ends[batch.request_id] = received, finishes
            while True:
                try:
                    chunk = await stream.receive()
                except StopAsyncIteration:
                    break
                received.extend(chunk.token_ids)
                finishes.extend([] if chunk.finish_reason is None else [chunk.finish_reason])


prompts = st.lists(st.integers(3, 60), min_size=1, max_size=24).map(tuple)
sampling = st.builds(
    SamplingParams, max_tokens=st.integers(1, 16), temperature=st.sampled_from([0.0, 1.0]), seed=st.integers(0, 99)
)
batches = st.builds(ExecuteBatch, request_id=st.just(""), model=st.just("m"), prompt=prompts, sampling=sampling)
plans = st.lists(
    st.tuples(st.integers(0, 12).map(float), batches, st.none() | st.floats(0.1, 12)), min_size=1, max_size=7
)
kinds = st.sampled_from(["poison", "memory", "bug"])
faults = st.lists(st.tuples(st.integers(1, 24), st.integers(0, 1), kinds), max_size=3)
ends_of_a_replica = st.tuples(st.integers(1, 20), st.integers(0, 1), st.sampled_from(["failed", "stopped", "drained"]))


@settings(max_examples=60)
@given(
    plan=plans,
    faults=faults,
    gone=st.none() | ends_of_a_replica,
    _seed=st.random_module(),
)
def test_every_answer_ends_once_with_its_own_tokens(engines, plan, faults, gone, _seed):
    plan = [(start, evolve(batch, request_id=f"r{n}"), leave) for n, (start, batch, leave) in enumerate(plan)]
    wanted, ends = expected(engines[0], plan), {}

    async def scenario():
        runners = [Inline(engine) for engine in engines]

        async def strike(when, replica, kind):
            await trio.sleep(when + 0.1)
            engine = cluster.system.lookup(f"/deployments/m-{replica}")
            match kind:
                case "memory":
                    runners[replica].ail(RuntimeError("RESOURCE_EXHAUSTED: Out of memory"))
                case "bug":
                    runners[replica].ail(ValueError("a bug"))
                case "poison":
                    runners[replica].fail(CudaContextPoisoned("illegal address"))
                case "failed":
                    runners[replica].fail(Unrecoverable("gone"))
                case "stopped":
                    engine.stop("not needed")
                case "drained":
                    engine.tell(Drain())

        async with cluster_of(runners) as cluster, trio.open_nursery() as nursery:
            for each in plan:
                nursery.start_soon(live, cluster, *each, ends)
            for when, replica, kind in faults:
                nursery.start_soon(strike, when, replica, kind)
            if gone is not None:
                nursery.start_soon(strike, *gone)

    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))
    for (_, batch, leave), tokens in zip(plan, wanted, strict=True):
        received, finishes = ends.get(batch.request_id, ([], []))
        if leave is None or finishes:
            assert received == tokens
            assert len(finishes) == 1
        else:
            assert received == tokens[: len(received)]
    for engine in engines:
        # Steps of those who left may still be on the device; nobody is in them.
        engine.on_dispatch = None
        while not engine.idle:
            assert engine.step().outputs == []
        assert engine.free_pages == 24
