"""The runtime's decisions: admission, routing table, deciders, states, counters."""

from itertools import pairwise

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.actor import ChildEscalated, Directive, SupervisorGaveUp
from atomr_trio.core import (
    Backpressure,
    CapacityPolicy,
    CudaContextPoisoned,
    DeploymentState,
    DeploymentUnavailable,
    ModelLoadError,
    ModelNotFound,
    OutOfMemory,
    Serving,
    TokenUsage,
    Unrecoverable,
)
from atomr_trio.runtime.admission import Admission
from atomr_trio.runtime.coordinator import RoutingTable
from atomr_trio.runtime.deployments import deployment_state, failure_reason
from atomr_trio.runtime.messages import (
    DeploymentMetrics,
    RecordCancelled,
    RecordFailure,
    RecordLate,
    RecordSuccess,
    RouteTarget,
)
from atomr_trio.runtime.metrics import record
from atomr_trio.runtime.worker import decide_context


@given(
    slots=st.integers(1, 4),
    capacity=st.integers(0, 4),
    policy=st.sampled_from([CapacityPolicy.QUEUE, CapacityPolicy.REJECT]),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=60),
)
def test_admission_matches_a_naive_model(slots, capacity, policy, steps):
    serving = Serving(max_concurrent=slots, queue_capacity=capacity, on_capacity_exhausted=policy)
    admission = Admission(serving)
    running, waiting, number = [], [], 0
    for arrives, pick in steps:
        if arrives:
            number += 1
            key = str(number)
            room = len(waiting) < capacity and policy is CapacityPolicy.QUEUE
            if len(running) < slots:
                assert admission.admit(key, key)
                running.append(key)
            elif room:
                assert not admission.admit(key, key)
                waiting.append(key)
            else:
                with pytest.raises(Backpressure):
                    admission.admit(key, key)
        elif running or waiting:
            key = (running + waiting)[pick % len(running + waiting)]
            started = admission.release(key)
            (running if key in running else waiting).remove(key)
            expected = []
            while waiting and len(running) < slots:
                expected.append(waiting[0])
                running.append(waiting.pop(0))
            assert started == expected
        assert (admission.running, admission.waiting) == (len(running), len(waiting))
        assert admission.load == (len(running) + len(waiting)) / slots
    assert admission.drain_queue() == waiting


def test_releasing_a_stranger_changes_nothing():
    admission = Admission(Serving(max_concurrent=1))
    admission.admit("a", "a")
    assert admission.release("b") == []
    assert admission.running == 1


@frozen
class Ref:
    path: str


def test_the_least_loaded_target_wins_and_the_first_on_ties():
    table = RoutingTable()
    with pytest.raises(ModelNotFound):
        table.route("m")
    table.announce("m", "loading", 2.0)
    with pytest.raises(DeploymentUnavailable, match="loading") as caught:
        table.route("m")
    assert caught.value.retry_after == 2.0
    for path in "abc":
        table.register("m", RouteTarget(Ref(path)))
    assert table.route("m").engine.path == "a"
    table.report("m", "a", 0.5)
    assert table.route("m").engine.path == "b"
    table.report("m", "stranger", 0.0)
    table.register("m", RouteTarget(Ref("b"), 0.9))  # replaces, does not add
    table.remove_engine("c")
    assert table.route("m").engine.path == "a"
    table.remove_engine("a")
    table.remove_engine("b")
    with pytest.raises(DeploymentUnavailable):
        table.route("m")
    table.forget("m")
    with pytest.raises(ModelNotFound):
        table.route("m")


@pytest.mark.parametrize(
    ("failure", "directive"),
    [
        (CudaContextPoisoned("x"), Directive.RESTART),
        (OutOfMemory("x"), Directive.RESUME),
        (Unrecoverable("x"), Directive.STOP),
        (ModelLoadError("x"), Directive.STOP),
        (RuntimeError("the ContextPoisoned tag"), Directive.RESTART),
        (RuntimeError("OutOfMemory"), Directive.RESUME),
        (RuntimeError("Unrecoverable"), Directive.STOP),
        (RuntimeError("anything else"), Directive.ESCALATE),
    ],
)
def test_a_failed_context_is_judged_by_type_then_by_tag(failure, directive):
    assert decide_context(failure) is directive


def test_deployment_states():
    S = DeploymentState
    assert deployment_state(S.PENDING, [False], ever_ready=False) is S.PENDING
    assert deployment_state(S.PENDING, [False, True], ever_ready=True) is S.SERVING
    assert deployment_state(S.SERVING, [False, False], ever_ready=True) is S.RECOVERING
    assert deployment_state(S.SERVING, [], ever_ready=True) is S.FAILED
    assert deployment_state(S.DRAINING, [True], ever_ready=True) is S.DRAINING
    assert deployment_state(S.FAILED, [True], ever_ready=True) is S.FAILED


def chain(*errors):
    for outer, inner in pairwise(errors):
        outer.__cause__ = inner
    return errors[0]


def test_a_failure_is_explained_without_internals():
    gave_up = SupervisorGaveUp("/w", "/w/context", 3, 60.0)
    assert failure_reason(chain(ChildEscalated("/e"), gave_up, CudaContextPoisoned("x"))) == (
        "its engine failed too often and was given up"
    )
    unloadable = chain(ChildEscalated("/e"), Unrecoverable("wrapped"), ModelLoadError("unsupported architecture"))
    assert failure_reason(unloadable) == "cannot load the model: unsupported architecture"
    assert failure_reason(chain(ChildEscalated("/e"), KeyError("secret"))) == "its engine failed"
    assert failure_reason(None) == "its engine failed"


def test_each_end_is_counted_once():
    metrics = DeploymentMetrics()
    metrics = record(metrics, RecordSuccess("d", TokenUsage(1, 2), 0.5))
    metrics = record(metrics, RecordFailure("d", "timeout"))
    metrics = record(metrics, RecordFailure("d", "timeout"))
    metrics = record(metrics, RecordCancelled("d", TokenUsage(0, 5)))
    metrics = record(metrics, RecordLate("d", 2))
    assert metrics == DeploymentMetrics(1, 2, 1, {"timeout": 2}, TokenUsage(1, 7), 0.5, TokenUsage(0, 5), 2)
