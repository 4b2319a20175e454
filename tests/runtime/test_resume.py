"""Answers go on after the death of their engine, and end once."""

from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from atomr_trio.core import (
    CudaContextPoisoned,
    Deployment,
    DeploymentUnavailable,
    InferenceError,
    ModelRunner,
    RequestQuarantined,
    Serving,
    TokenChunk,
    Unrecoverable,
)
from atomr_trio.runtime import Cluster

from .kit import batch


class Storyteller(ModelRunner):
    """Tells one token a second; ``poison`` in the prompt ends the context at that token of that request.

    Args:
        loading: seconds.
        killed: such a request gets the context killed from outside.
    """

    resumable = True

    def __init__(self, loading=1.0, *, killed=False):
        self.loading_s = loading
        self.killed = killed
        self.taken = []
        self.sessions = 0
        self._broken = trio.Event()
        self._failure = None

    def fail(self, failure):
        self._failure = failure
        self._broken.set()

    @asynccontextmanager
    async def session(self):
        self.sessions += 1
        self._broken = trio.Event()
        await trio.sleep(self.loading_s)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            yield
            nursery.cancel_scope.cancel()

    async def _watch(self):
        await self._broken.wait()
        raise self._failure

    async def execute(self, batch, out):
        length, poison = batch.prompt
        self.taken.append((batch.request_id, len(batch.generated)))
        for position in range(len(batch.generated), length):
            await trio.sleep(1)
            if position == poison:
                raise CudaContextPoisoned("illegal address", self.killed)
            out.push(TokenChunk(text_delta=f"{position} ", token_ids=(position,)))


@asynccontextmanager
async def cluster_of(runners, idempotent=True):
    unused = list(runners)

    async def create(_deployment):
        return unused.pop(0)

    async with Cluster.open(create_runner=create) as cluster:
        deployment = Deployment(
            name="m",
            model="m",
            runtime="story",
            replicas=len(runners),
            serving=Serving(max_concurrent=8),
            idempotent=idempotent,
        )
        await cluster.deploy(deployment, wait=True)
        yield cluster


async def ask(cluster, outcomes, name, length, poison=-1):
    try:
        answer = await cluster.execute(batch((length, poison), name))
        outcomes[name] = list(answer.token_ids), answer.text
    except InferenceError as error:
        outcomes[name] = error


def whole(length):
    return list(range(length)), "".join(f"{position} " for position in range(length))


def simulate(scenario):
    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))


requests = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 12)), min_size=1, max_size=6)


@settings(max_examples=60)
@given(requests=requests, deaths=st.lists(st.integers(1, 30), max_size=3), _seed=st.random_module())
def test_every_answer_is_whole_whenever_the_context_dies(requests, deaths, _seed):
    async def scenario():
        runner, outcomes = Storyteller(), {}
        async with cluster_of([runner]) as cluster, trio.open_nursery() as nursery:

            async def later(number, start, length):
                await trio.sleep(start + 0.25)
                await ask(cluster, outcomes, f"r{number}", length)

            for number, (start, length) in enumerate(requests):
                nursery.start_soon(later, number, start, length)
            for before, death in zip([0, *sorted(deaths)], sorted(deaths), strict=False):
                await trio.sleep(death - before)
                runner.fail(CudaContextPoisoned("illegal address"))
        assert outcomes == {f"r{number}": whole(length) for number, (_, length) in enumerate(requests)}

    simulate(scenario)


@settings(max_examples=60)
@given(
    requests=requests,
    deaths=st.lists(st.tuples(st.integers(1, 20), st.integers(0, 2)), min_size=1, max_size=2, unique_by=lambda d: d[1]),
    _seed=st.random_module(),
)
def test_replicas_go_on_with_what_a_dead_one_leaves(requests, deaths, _seed):
    async def scenario():
        runners, outcomes = [Storyteller() for _ in range(3)], {}
        async with cluster_of(runners) as cluster, trio.open_nursery() as nursery:
            await trio.sleep(2)  # all of them are up

            async def later(number, start, length):
                await trio.sleep(start + 0.25)
                await ask(cluster, outcomes, f"r{number}", length)

            for number, (start, length) in enumerate(requests):
                nursery.start_soon(later, number, start, length)
            for death, replica in deaths:
                nursery.start_soon(fail_later, runners[replica], death)
        assert outcomes == {f"r{number}": whole(length) for number, (_, length) in enumerate(requests)}

    async def fail_later(runner, seconds):
        await trio.sleep(seconds)
        runner.fail(Unrecoverable("the device fell off the bus"))

    simulate(scenario)


@settings(max_examples=40)
@given(
    innocent=st.lists(st.integers(2, 12), max_size=4),
    position=st.integers(0, 3),
    killed=st.booleans(),
    _seed=st.random_module(),
)
def test_a_request_that_kills_the_engine_each_time_is_found_and_the_others_go_on(innocent, position, killed, _seed):
    async def scenario():
        runner, outcomes = Storyteller(killed=killed), {}
        async with cluster_of([runner]) as cluster, trio.open_nursery() as nursery:
            for number, length in enumerate(innocent):
                nursery.start_soon(ask, cluster, outcomes, f"r{number}", length)
            nursery.start_soon(ask, cluster, outcomes, "bad", 9, position)
        bad = outcomes.pop("bad")
        assert isinstance(bad, RequestQuarantined)
        assert outcomes == {f"r{number}": whole(length) for number, length in enumerate(innocent)}
        # It may get tokens before the first death; then two with the others, and four alone, or six.
        assert runner.sessions <= (10 if killed else 8)

    simulate(scenario)


async def test_a_deployment_that_is_not_idempotent_computes_nothing_twice(autojump_clock):
    runner, outcomes = Storyteller(), {}
    async with cluster_of([runner], idempotent=False) as cluster, trio.open_nursery() as nursery:
        nursery.start_soon(ask, cluster, outcomes, "one", 5)
        await trio.sleep(2.5)
        runner.fail(CudaContextPoisoned("illegal address"))
    assert isinstance(outcomes["one"], CudaContextPoisoned)
    assert runner.taken == [("one", 0)]


async def test_without_another_replica_the_end_is_a_typed_refusal(autojump_clock):
    runner, outcomes = Storyteller(), {}
    async with cluster_of([runner]) as cluster:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, cluster, outcomes, "one", 5)
            await trio.sleep(2.5)
            runner.fail(Unrecoverable("the device fell off the bus"))
        assert isinstance(outcomes["one"], DeploymentUnavailable)
        # The session's failure came in a nursery's group.
        await ask(cluster, outcomes, "two", 5)
        assert "the device fell off the bus" in str(outcomes["two"])


@pytest.mark.parametrize("when", [0.1, 2.5, 3.2])
async def test_who_leaves_while_the_engine_recovers_is_not_taken_up_again(autojump_clock, when):
    runner, outcomes = Storyteller(loading=5), {}
    async with cluster_of([runner]) as cluster:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, cluster, outcomes, "one", 50)
            await trio.sleep(2.5)
            runner.fail(CudaContextPoisoned("illegal address"))
            await trio.sleep(when)
            nursery.cancel_scope.cancel()
        await trio.sleep(20)
        assert [taken for taken in runner.taken if taken[0] == "one"] == [("one", 0)]
        await ask(cluster, outcomes, "two", 3)
    assert outcomes == {"two": whole(3)}
