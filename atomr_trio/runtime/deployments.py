"""The catalogue of what is served, and the branch of the tree that serves it."""

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from attrs import define, evolve, field

from atomr_trio.actor import (
    Actor,
    ActorRef,
    Context,
    Props,
    ReplySlot,
    SupervisorGaveUp,
    SupervisorStrategy,
    Terminated,
    stopping,
)
from atomr_trio.core import (
    BadRequest,
    Deployment,
    DeploymentState,
    InferenceError,
    Internal,
    ModelNotFound,
    ModelRunner,
)

from .engine_core import EngineCoreActor
from .messages import (
    Announce,
    Apply,
    AwaitSettled,
    CoordinatorMsg,
    DeploymentMsg,
    DeploymentRecord,
    Deregister,
    Drain,
    EngineMsg,
    EngineStateChanged,
    Get,
    List,
    Remove,
)

__all__ = ["DeploymentManagerActor", "RunnerFactory", "deployment_state", "failure_reason"]


UNSETTLED = (DeploymentState.PENDING, DeploymentState.RECOVERING)


RunnerFactory = Callable[[Deployment], Awaitable[ModelRunner]]
"""Builds the runner of a deployment; raises an ``InferenceError`` if it can never be served."""


def deployment_state(was: DeploymentState, replicas: Iterable[bool], ever_ready: bool) -> DeploymentState:
    """Return the state that follows from the living replicas' readiness.

    Args:
        was: the state so far; draining and failed stay.
        replicas: for each living replica, whether it is ready.
        ever_ready: whether any was ready before.
    """
    ready = list(replicas)
    if was in (DeploymentState.DRAINING, DeploymentState.FAILED):
        return was
    if not ready:
        return DeploymentState.FAILED
    if any(ready):
        return DeploymentState.SERVING
    return DeploymentState.RECOVERING if ever_ready else DeploymentState.PENDING


def failure_reason(failure: BaseException | None) -> str:
    """Say in one line, fit for clients, why an engine is gone: follows the chain of causes."""
    while failure is not None:
        if isinstance(failure, SupervisorGaveUp):
            return "its engine failed too often and was given up"
        if isinstance(failure, InferenceError) and failure.__cause__ is None:
            return str(failure)
        failure = failure.__cause__
    return "its engine failed"


@define
class _Served:
    record: DeploymentRecord
    engines: dict[str, ActorRef[EngineMsg]] = field(factory=dict[str, ActorRef[EngineMsg]])
    ready: dict[str, bool] = field(factory=dict[str, bool])
    ever_ready: bool = False
    waiting: list[ReplySlot[DeploymentRecord]] = field(factory=list[ReplySlot[DeploymentRecord]])

    def update(self, state: DeploymentState, reason: str | None = None) -> None:
        """Enter a state, and answer those who waited for it."""
        self.record = evolve(self.record, state=state, reason=reason)
        if state not in UNSETTLED:
            waiting, self.waiting = self.waiting, []
            for slot in waiting:
                slot.resolve(self.record)


class DeploymentManagerActor(Actor[DeploymentMsg]):
    """Pending → Serving → Draining → gone | Failed. An engine that fails for good stays down; the others serve on.

    Args:
        create_runner: builds the runner of a deployment.
        coordinator: routes to the engines.
    """

    supervisor_strategy: SupervisorStrategy = stopping()

    def __init__(self, create_runner: RunnerFactory, coordinator: ActorRef[CoordinatorMsg]) -> None:
        self._create_runner = create_runner
        self._coordinator = coordinator
        self._served: dict[str, _Served] = {}
        self._drained: dict[str, list[ReplySlot[Any]]] = {}

    async def handle(self, message: DeploymentMsg, ctx: Context[DeploymentMsg]) -> Any:
        """Apply, remove, tell."""
        match message:
            case Apply(deployment):
                self._apply(deployment, ctx)
            case Remove(name):
                self._remove(name, ctx)
            case Get(name):
                return self._get(name, ctx)
            case AwaitSettled(name):
                self._await_settled(name, ctx)
            case List():
                return tuple(served.record for served in self._served.values())
            case EngineStateChanged(name, path, ready):
                self._engine_state(name, path, ready)
        return None

    async def on_terminated(self, terminated: Terminated, ctx: Context[DeploymentMsg]) -> None:
        """An engine is gone: drained, or failed for good."""
        for name, served in list(self._served.items()):
            if served.engines.pop(terminated.ref.path, None) is not None:
                served.ready.pop(terminated.ref.path, None)
                self._engine_gone(name, served, terminated)

    # Apply

    def _apply(self, deployment: Deployment, ctx: Context[DeploymentMsg]) -> None:
        served = self._served.get(deployment.name)
        if served is None:
            record = DeploymentRecord(deployment=deployment, created=int(time.time()))
            self._served[deployment.name] = served = _Served(record)
            self._coordinator.tell(Announce(deployment.name, "the model is loading"))
            # Reading a model's files takes seconds: the catalogue must answer meanwhile.
            ctx.spawn_task(self._launch, served, ctx.defer_reply(), ctx, name=f"launch {deployment.name}")
        elif served.record.deployment == deployment:
            ctx.defer_reply().resolve(served.record)
        else:
            message = f"deployment `{deployment.name}` exists with another configuration; remove it first"
            ctx.fail(BadRequest(message))

    async def _launch(self, served: _Served, reply: ReplySlot[DeploymentRecord], ctx: Context[DeploymentMsg]) -> None:
        deployment = served.record.deployment
        try:
            runners = [await self._create_runner(deployment) for _ in range(deployment.replicas)]
        except Exception as failure:
            refusal = failure if isinstance(failure, InferenceError) else Internal(f"the runner failed: {failure}")
            self._fail(deployment.name, served, str(refusal))
            reply.fail(refusal)
            return
        if self._served.get(deployment.name) is not served:
            reply.fail(ModelNotFound(deployment.name))  # removed while it was being read
            return
        first = runners[0]
        served.record = evolve(
            served.record,
            codec=first.codec,
            check_grammar=first.check_grammar,
            embeds=first.embeds,
            price=first.estimate_cost_usd,
        )
        for index, runner in enumerate(runners):
            self._start_engine(served, index, runner, ctx)
        reply.resolve(served.record)

    def _start_engine(self, served: _Served, index: int, runner: ModelRunner, ctx: Context[DeploymentMsg]) -> None:
        deployment = served.record.deployment
        props = Props[EngineMsg](
            factory=lambda: EngineCoreActor(deployment, runner, self._coordinator, ctx.self_ref),
            capacity=2 * (deployment.serving.max_concurrent + deployment.serving.queue_capacity) + 64,
        )
        name = f"{deployment.name.replace('/', ':')}-{index}"
        engine = ctx.spawn_soon(props, name)
        ctx.watch(engine)
        served.engines[engine.path] = engine
        served.ready[engine.path] = False

    # State

    def _engine_state(self, name: str, path: str, ready: bool) -> None:
        served = self._served.get(name)
        if served is None or path not in served.ready:
            return
        served.ready[path] = ready
        served.ever_ready = served.ever_ready or ready
        self._settle(served)

    def _settle(self, served: _Served) -> None:
        state = deployment_state(served.record.state, served.ready.values(), served.ever_ready)
        served.update(state, served.record.reason)

    def _engine_gone(self, name: str, served: _Served, terminated: Terminated) -> None:
        if served.record.state is not DeploymentState.DRAINING:
            if served.engines:
                self._settle(served)
            else:
                self._fail(name, served, failure_reason(terminated.failure))
        elif not served.engines:
            self._forget(name)

    def _fail(self, name: str, served: _Served, reason: str) -> None:
        served.update(DeploymentState.FAILED, reason)
        # No Retry-After: it does not come back by itself.
        self._coordinator.tell(Announce(name, reason, None))

    # Remove and Get

    def _remove(self, name: str, ctx: Context[DeploymentMsg]) -> None:
        served = self._served.get(name)
        if served is None:
            ctx.fail(ModelNotFound(name))
            return
        self._drained.setdefault(name, []).append(ctx.defer_reply())
        served.update(DeploymentState.DRAINING)
        self._coordinator.tell(Announce(name, "it is being removed", None))
        for engine in served.engines.values():
            engine.tell(Drain())
        if not served.engines:
            self._forget(name)

    def _forget(self, name: str) -> None:
        del self._served[name]
        self._coordinator.tell(Deregister(name))
        for reply in self._drained.pop(name, []):
            reply.resolve(None)

    def _await_settled(self, name: str, ctx: Context[DeploymentMsg]) -> None:
        served = self._served.get(name)
        if served is None:
            ctx.fail(ModelNotFound(name))
        elif served.record.state in UNSETTLED:
            served.waiting.append(ctx.defer_reply())
        else:
            ctx.defer_reply().resolve(served.record)

    def _get(self, name: str, ctx: Context[DeploymentMsg]) -> DeploymentRecord | None:
        served = self._served.get(name)
        if served is None:
            ctx.fail(ModelNotFound(name))
            return None
        return served.record
