"""The actors together, with a scripted runner: every way in which a request, a context or a replica can end."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.actor import Actor, ActorFailed, Props
from atomr_trio.core import (
    Backpressure,
    BadRequest,
    CudaContextPoisoned,
    Deployment,
    DeploymentState,
    DeploymentUnavailable,
    FinishReason,
    Internal,
    ModelLoadError,
    ModelNotFound,
    NetworkError,
    OutOfMemory,
    TokenUsage,
)
from atomr_trio.runners import RunnerRegistry
from atomr_trio.runtime import Cluster, TokenStream
from atomr_trio.runtime.messages import Cancel, Dispatch, Drain
from atomr_trio.runtime.request import RequestActor

from .kit import Scripted, batch, outcome_of, scripted_cluster


async def state(cluster):
    return (await cluster.directory.deployment("m")).state


async def settle():
    for _ in range(3):
        await trio.testing.wait_all_tasks_blocked(0.001)


async def test_a_request_runs_from_gateway_to_runner_and_is_counted():
    async with scripted_cluster() as (cluster, _):
        tokens = await cluster.execute(batch("hello"))
        assert (tokens.text, tokens.finish_reason) == ("hello world", FinishReason.STOP)
        assert tokens.usage == TokenUsage(1, 3)
        await settle()
        assert (await cluster.metrics())["m"].requests_succeeded == 1
        paths = []

        def walk(node):
            paths.append(node.path)
            for child in node.children:
                walk(child)

        walk(cluster.system.tree())
        assert "/deployments/m-0/worker/context" in paths
        assert not any("request" in path for path in paths)


async def test_an_unknown_model_and_a_raising_runner_are_typed():
    async def broken(_batch, out):
        raise KeyError("secret")

    async def refused(_batch, out):
        raise NetworkError("upstream")

    async with scripted_cluster() as (cluster, (runner,)):
        runner.scripts |= {"broken": broken, "refused": refused}
        with pytest.raises(ModelNotFound):
            await cluster.execute(batch("hello", model="other"))
        assert await outcome_of(cluster, "refused") is not None
        failure = await outcome_of(cluster, "broken")
        assert isinstance(failure, Internal)
        assert "secret" not in str(failure)
        # A bug in one request is no failure of the context.
        assert (runner.sessions, await state(cluster)) == (1, DeploymentState.SERVING)
        await settle()
        assert (await cluster.metrics())["m"].failures == {"network_error": 1, "internal": 1}


async def test_leaving_the_block_cancels_the_runner_and_frees_the_slot(autojump_clock):
    async with scripted_cluster(max_concurrent=1) as (cluster, (runner,)):
        async with cluster.submit(batch("hang", "one")):
            await settle()
            assert runner.running == {"one"}
        await settle()
        assert (runner.running, runner.cancelled) == (set(), ["one"])
        assert await outcome_of(cluster, "hello") == "hello world"
        assert trio.current_time() < 0.1
        assert (await cluster.metrics())["m"].requests_cancelled == 1


async def test_a_request_cancelled_in_the_queue_never_runs():
    async with scripted_cluster(max_concurrent=1) as (cluster, (runner,)), cluster.submit(batch("hang", "one")):
        await settle()
        async with cluster.submit(batch("hang", "two")):
            await settle()
        await settle()
        assert runner.running == {"one"}
        assert runner.cancelled == []


async def test_beyond_slots_and_queue_there_is_backpressure_and_the_queue_times_out(autojump_clock):
    async with scripted_cluster(max_concurrent=1, queue_capacity=1) as (cluster, (runner,)):
        async with cluster.submit(batch("hang", "one")):
            await settle()
            async with cluster.submit(batch("hang", "two")) as waiting:
                await settle()
                assert isinstance(await outcome_of(cluster, "hello", "three"), Backpressure)
                started = trio.current_time()
                with pytest.raises(Backpressure, match="60s in the queue"):
                    await waiting.collect()
                assert trio.current_time() - started == pytest.approx(60, abs=1)
        await settle()
        assert runner.cancelled == ["one"]


async def test_a_poisoned_context_fails_its_requests_once_and_serves_the_next(autojump_clock):
    async with scripted_cluster(max_concurrent=2) as (cluster, (runner,)):
        outcomes = {}

        async def run(name):
            outcomes[name] = await outcome_of(cluster, "hang" if name != "queued" else "hello", name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, "one")
            nursery.start_soon(run, "two")
            await settle()
            nursery.start_soon(run, "queued")
            await settle()
            runner.gate = trio.Event()
            runner.break_session(CudaContextPoisoned("illegal address"))
            await settle()
            assert await state(cluster) is DeploymentState.RECOVERING
            runner.gate.set()
        assert all(isinstance(outcomes[name], CudaContextPoisoned) for name in ("one", "two"))
        assert outcomes["queued"] == "hello world"
        assert await outcome_of(cluster, "hello") == "hello world"
        assert (runner.sessions, await state(cluster)) == (2, DeploymentState.SERVING)


async def test_four_poisons_within_a_minute_fail_the_deployment_and_nothing_else(autojump_clock):
    async with scripted_cluster() as (cluster, (runner,)):
        for _ in range(4):
            assert await state(cluster) is DeploymentState.SERVING
            assert await outcome_of(cluster, "hello") == "hello world"
            runner.break_session(CudaContextPoisoned("x"))
            await trio.sleep(1)
        assert await state(cluster) is DeploymentState.FAILED
        failure = await outcome_of(cluster, "hello")
        assert isinstance(failure, DeploymentUnavailable)
        assert failure.reason == "its engine failed too often and was given up"
        assert failure.retry_after is None
        assert runner.sessions == 4


async def test_poisons_further_apart_are_survived(autojump_clock):
    async with scripted_cluster() as (cluster, (runner,)):
        for _ in range(10):
            runner.break_session(CudaContextPoisoned("x"))
            await trio.sleep(21)
        assert await state(cluster) is DeploymentState.SERVING


async def test_a_runner_that_meets_poison_in_a_request_restarts_the_context(autojump_clock):
    async def poison(_batch, out):
        raise CudaContextPoisoned("launch failure")

    async with scripted_cluster() as (cluster, (runner,)):
        runner.scripts["poison"] = poison
        assert isinstance(await outcome_of(cluster, "poison"), CudaContextPoisoned)
        assert await outcome_of(cluster, "hello") == "hello world"
        assert runner.sessions == 2


async def test_out_of_memory_ends_its_request_and_resumes_the_context(autojump_clock):
    async def greedy(_batch, out):
        raise OutOfMemory("too much")

    async with scripted_cluster() as (cluster, (runner,)):
        runner.scripts["greedy"] = greedy
        assert isinstance(await outcome_of(cluster, "greedy"), OutOfMemory)
        assert await outcome_of(cluster, "hello") == "hello world"
        assert runner.sessions == 1


async def test_a_model_that_cannot_be_loaded_fails_with_its_reason(autojump_clock):
    runner = Scripted()
    runner.load_failures = [ModelLoadError("unsupported architecture")]
    with pytest.raises(DeploymentUnavailable, match="unsupported architecture"):
        async with scripted_cluster(runners=[runner]):
            pass
    assert runner.sessions == 1


async def test_a_session_that_fails_to_open_is_tried_again(autojump_clock):
    runner = Scripted()
    runner.load_failures = [CudaContextPoisoned("x"), CudaContextPoisoned("y")]
    async with scripted_cluster(runners=[runner]) as (cluster, _):
        assert await outcome_of(cluster, "hello") == "hello world"
        assert runner.sessions == 3


async def test_an_unknown_failure_of_the_session_is_not_restarted(autojump_clock):
    async with scripted_cluster() as (cluster, (runner,)):
        runner.break_session(ValueError("a bug"))
        await trio.sleep(1)
        assert (await state(cluster), runner.sessions) == (DeploymentState.FAILED, 1)


async def test_a_runtime_nobody_registered_is_a_load_error():
    async with Cluster.open(RunnerRegistry()) as cluster:
        with pytest.raises(ModelLoadError, match="no runner for runtime 'nope'"):
            await cluster.deploy(Deployment(name="m", model="m", runtime="nope"))
        assert await state(cluster) is DeploymentState.FAILED


async def test_requests_go_to_the_least_loaded_replica_and_survive_the_death_of_another(autojump_clock):
    async with scripted_cluster(replicas=2) as (cluster, runners), cluster.submit(batch("hang", "one")):
        await settle()
        # Replicas register in any order, and the first one wins a tie.
        first, second = sorted(runners, key=lambda runner: not runner.running)
        async with cluster.submit(batch("hang", "two")):
            await settle()
            assert (len(first.running), len(second.running)) == (1, 1)
            first.break_session(ValueError("dies for good"))
            await trio.sleep(1)
            assert await state(cluster) is DeploymentState.SERVING
            assert await outcome_of(cluster, "hello") == "hello world"
            assert second.running == {"two"}


async def test_equal_apply_changes_nothing_and_a_changed_one_is_refused():
    async with scripted_cluster() as (cluster, made):
        record = await cluster.directory.deployment("m")
        assert await cluster.deploy(record.deployment) == record
        assert len(made) == 1
        with pytest.raises(BadRequest, match="another configuration"):
            await cluster.deploy(Deployment(name="m", model="other", runtime="scripted"))


async def test_remove_drains_and_forgets(autojump_clock):
    async with scripted_cluster() as (cluster, _):
        removed = []
        async with trio.open_nursery() as nursery, cluster.submit(batch("hang")):
            await settle()

            async def remove():
                await cluster.remove("m")
                removed.append(trio.current_time())

            nursery.start_soon(remove)
            await settle()
            assert await state(cluster) is DeploymentState.DRAINING
            assert isinstance(await outcome_of(cluster, "hello"), DeploymentUnavailable)
            assert removed == []
        assert len(removed) == 1
        with pytest.raises(ModelNotFound):
            await cluster.remove("m")


async def test_stopping_the_cluster_ends_every_request(autojump_clock):
    outcomes = []
    async with trio.open_nursery() as nursery, scripted_cluster(max_concurrent=1) as (cluster, _):

        async def run(name):
            try:
                outcomes.append(await outcome_of(cluster, "hang", name))
            except ActorFailed as error:
                outcomes.append(error)

        for name in ("one", "two"):
            nursery.start_soon(run, name)
        await settle()
    assert len(outcomes) == 2


class Front(Actor):
    """Spawns request actors, as a gateway does."""

    async def pre_start(self, ctx):
        self.ctx = ctx


async def test_a_second_dispatch_is_ignored_and_cancel_works_while_routing(autojump_clock):
    front = Front()
    async with scripted_cluster() as (cluster, (runner,)):
        await cluster.system.actor_of(Props(factory=lambda: front), "front")
        directory = cluster.directory

        def request(name, coordinator):
            output = TokenStream(name)
            props = Props(factory=lambda: RequestActor(coordinator, directory.metrics, output))
            return front.ctx.spawn_soon(props, name), output

        twice, output = request("twice", directory.coordinator)
        twice.tell(Dispatch("m", batch("hang", "first")))
        twice.tell(Dispatch("m", batch("hang", "second")))
        await settle()
        assert runner.running == {"first"}
        twice.tell(Cancel("enough"))
        await twice.wait_terminated()
        await settle()
        assert (runner.running, output.cancel_reason) == (set(), "enough")

        deaf = await cluster.system.actor_of(Props(factory=Deaf), "deaf")
        early, output = request("early", deaf)
        early.tell(Dispatch("m", batch("hang")))
        await settle()
        early.tell(Cancel("changed my mind"))
        await early.wait_terminated()
        assert output.cancel_reason == "changed my mind"
        assert trio.current_time() < 1

        late, output = request("late", deaf)
        late.tell(Dispatch("m", batch("hang")))
        with pytest.raises(Internal, match="coordinator timeout"):
            await output.collect()
        await late.wait_terminated()


class Deaf(Actor):
    async def handle(self, message, ctx):
        ctx.defer_reply()


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("hello")),
        st.tuples(st.just("talk"), st.integers(1, 20)),
        st.tuples(st.just("hang"), st.integers(1, 20)),
        st.tuples(st.just("poison")),
        st.tuples(st.just("sleep"), st.integers(1, 30)),
    ),
    max_size=12,
)


@given(operations=OPERATIONS, slots=st.integers(1, 3), _seed=st.random_module())
def test_every_request_ends_exactly_once_whatever_dies(operations, slots, _seed):
    """Law 5 over generated histories: arrivals, clients that leave, poisoned contexts."""

    async def scenario():
        ends = []
        async with scripted_cluster(max_concurrent=slots, queue_capacity=2) as (cluster, (runner,)):

            async def client(name, prompt, patience):
                with trio.move_on_after(patience) as scope:
                    ends.append((name, await outcome_of(cluster, prompt, name)))
                if scope.cancelled_caught:
                    ends.append((name, "left"))

            async with trio.open_nursery() as nursery:
                for number, (what, *arguments) in enumerate(operations):
                    if what == "sleep":
                        await trio.sleep(arguments[0])
                    elif what == "poison":
                        runner.break_session(CudaContextPoisoned("x"))
                        await trio.sleep(0.01)
                    else:
                        nursery.start_soon(client, f"{number}", what, arguments[0] if arguments else 1000)
            await settle()
            expected = [f"{n}" for n, (what, *_) in enumerate(operations) if what in ("hello", "talk", "hang")]
            assert sorted(name for name, _ in ends) == sorted(expected)
            assert runner.running == set()
            total = (await cluster.metrics()).get("m")
            counted = total and total.requests_succeeded + total.requests_failed + total.requests_cancelled
            assert (counted or 0) == len(expected)
            engines = next(node for node in cluster.system.tree().children if node.path == "/deployments")
            assert all(child.queued == 0 for child in engines.children)

    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))


@given(st.integers(1, 6), st.integers(0, 40), st.random_module())
def test_who_is_sent_to_a_replica_that_drains_is_sent_to_another_one(requests, steps, _seed):
    async def scenario():
        async with (
            scripted_cluster(replicas=2) as (cluster, runners),
            cluster.submit(batch("hang", "one")),
            cluster.submit(batch("hang", "two")),
        ):
            await settle()
            assert all(runner.running for runner in runners)
            async with trio.open_nursery() as nursery:
                for number in range(requests):
                    nursery.start_soon(answered, cluster, f"r{number}")
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                cluster.system.lookup("/deployments/m-0").tell(Drain())

    async def answered(cluster, name):
        assert await outcome_of(cluster, "hello", name) == "hello world"

    trio.run(scenario, clock=trio.testing.MockClock(autojump_threshold=0))
