"""One replica: admission, queue, load, and the requests in flight."""

from functools import partial
from typing import Any

from atomr_trio.actor import Actor, ActorRef, Context, Props, SupervisorStrategy, escalating
from atomr_trio.core import Backpressure, Deployment, ModelRunner

from .admission import Admission
from .messages import (
    Add,
    CoordinatorMsg,
    DeploymentMsg,
    Deregister,
    Drain,
    EngineMsg,
    EngineStateChanged,
    Execute,
    GetLoad,
    Register,
    ReportLoad,
    RouteTarget,
    WorkerMsg,
    WorkerStateChanged,
)
from .worker import WorkerActor

__all__ = ["EngineCoreActor"]


class EngineCoreActor(Actor[EngineMsg]):
    """Admits requests up to ``max_concurrent``, queues up to ``queue_capacity``, refuses beyond.

    A slot is held until the request's stream has ended. What its worker cannot handle ends this replica; the
    deployment manager decides what follows.
    """

    supervisor_strategy: SupervisorStrategy = escalating()

    def __init__(
        self,
        deployment: Deployment,
        runner: ModelRunner,
        coordinator: ActorRef[CoordinatorMsg],
        manager: ActorRef[DeploymentMsg],
    ) -> None:
        self._deployment = deployment
        self._runner = runner
        self._coordinator = coordinator
        self._manager = manager
        self._admission = Admission[Add](deployment.serving)
        self._outputs: dict[str, Add] = {}
        self._worker: ActorRef[WorkerMsg] | None = None
        self._registered = False
        self._draining = False

    async def pre_start(self, ctx: Context[EngineMsg]) -> None:
        """Start the worker; it reports when its context is ready."""
        props = Props[WorkerMsg](factory=lambda: WorkerActor(self._deployment, self._runner, ctx.self_ref))
        self._worker = await ctx.spawn(props, "worker")

    async def handle(self, message: EngineMsg, ctx: Context[EngineMsg]) -> Any:
        """Admit, report, drain."""
        match message:
            case Add():
                if self._draining:
                    return None
                self._add(message, ctx)
                return self._deployment.serving.queue_timeout
            case GetLoad():
                return self._admission.load
            case WorkerStateChanged(ready):
                self._worker_state(ready, ctx)
            case Drain():
                self._draining = True
                self._coordinator.tell(Deregister(self._deployment.name, ctx.path))
                self._stop_if_drained(ctx)
        return None

    async def post_stop(self, ctx: Context[EngineMsg]) -> None:
        """Give back what still waits; the worker has let go of what ran."""
        outputs, self._outputs = self._outputs, {}
        for add in outputs.values():
            add.output.give_back(add.lease)

    def _add(self, add: Add, ctx: Context[EngineMsg]) -> None:
        key = add.output.request_id
        try:
            starts = self._admission.admit(key, add, add.batch.priority)
        except Backpressure as refusal:
            ctx.fail(refusal)
            return
        self._outputs[key] = add
        if starts:
            self._start(add)
        self._report(ctx)
        # Inline, and not by a message, which could be late or lost, and the slot with it.
        add.output.call_on_part(partial(self._release, key, add, ctx))

    def _release(self, key: str, add: Add, ctx: Context[EngineMsg]) -> None:
        # An engine that is gone has no slots; a stream that it has given back may be here again, with another lease.
        if self._outputs.get(key) is not add:
            return
        del self._outputs[key]
        for following in self._admission.release(key):
            self._start(following)
        self._report(ctx)
        self._stop_if_drained(ctx)

    def _start(self, add: Add) -> None:
        add.output.mark_started()
        if self._worker is not None:
            self._worker.tell(Execute(add.batch, add.output, add.lease))

    def _worker_state(self, ready: bool, ctx: Context[EngineMsg]) -> None:
        # Registered with the first readiness and kept through restarts: requests wait in the mailbox meanwhile.
        if ready and not self._registered:
            self._registered = True
            self._coordinator.tell(Register(self._deployment.name, RouteTarget(ctx.self_ref, self._admission.load)))
        self._manager.tell(EngineStateChanged(self._deployment.name, ctx.path, ready))

    def _report(self, ctx: Context[EngineMsg]) -> None:
        self._coordinator.tell(ReportLoad(self._deployment.name, ctx.path, self._admission.load))

    def _stop_if_drained(self, ctx: Context[EngineMsg]) -> None:
        if self._draining and not self._outputs:
            ctx.stop("drained")
