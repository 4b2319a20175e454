"""The stable half of an engine: it supervises the context and knows which requests are in it."""

import logging
from functools import partial

import trio

from atomr_trio.actor import Actor, ActorRef, Context, Directive, Props, SupervisorStrategy, Terminated, leaves
from atomr_trio.core import (
    CudaContextPoisoned,
    Deployment,
    DeploymentUnavailable,
    InferenceError,
    ModelRunner,
    OutOfMemory,
    RequestQuarantined,
    Unrecoverable,
)

from .context import ContextActor
from .journal import Journal
from .messages import (
    ContextPoisoned,
    ContextReady,
    ContextRestarting,
    EngineMsg,
    Execute,
    WorkerMsg,
    WorkerStateChanged,
)

log: logging.Logger = logging.getLogger("atomr_trio.runtime")

__all__ = ["WorkerActor", "context_strategy", "decide_context"]

_BY_TYPE = (
    (CudaContextPoisoned, Directive.RESTART),
    (OutOfMemory, Directive.RESUME),
    (Unrecoverable, Directive.STOP),
)
_BY_TAG = (
    ("ContextPoisoned", Directive.RESTART),
    ("OutOfMemory", Directive.RESUME),
    ("Unrecoverable", Directive.STOP),
)


def decide_context(failure: Exception) -> Directive:
    """Decide about a failed context: by the error's type, then by the tag in its text, else escalate."""
    for cls, directive in _BY_TYPE:
        if isinstance(failure, cls):
            return directive
    text = str(failure)
    return next((directive for tag, directive in _BY_TAG if tag in text), Directive.ESCALATE)


def context_strategy(deployment: Deployment) -> SupervisorStrategy:
    """Return how contexts of a deployment are supervised: as a rule the fourth failure in a minute ends the replica."""
    return SupervisorStrategy(
        decider=decide_context, max_restarts=deployment.max_restarts, within=deployment.restart_window
    )


class WorkerActor(Actor[WorkerMsg]):
    """Keeps the journal of requests in flight and passes them to the context.

    What comes while there is no context waits. What a context had taken up when it died goes on in the next one,
    from the tokens that its client has, if the runner can do so and the deployment is idempotent; else it ends with
    one typed error. When the worker stops, such requests are given back for other replicas to go on with.
    """

    def __init__(self, deployment: Deployment, runner: ModelRunner, engine: ActorRef[EngineMsg]) -> None:
        self._deployment = deployment
        self._runner = runner
        self._engine = engine
        self.supervisor_strategy: SupervisorStrategy = context_strategy(deployment)
        self._journal = Journal(deployment.max_restarts, deployment.restart_window)
        self._waiting = False
        self._context: ActorRef[Execute] | None = None

    async def pre_start(self, ctx: Context[WorkerMsg]) -> None:
        """Start the first context without waiting for its load."""
        ctx.spawn_task(self._hold_runner, name="runner")
        props = Props[Execute](factory=lambda: ContextActor(self._runner, ctx.self_ref))
        self._context = ctx.spawn_soon(props, "context")
        ctx.watch(self._context)

    async def handle(self, message: WorkerMsg, ctx: Context[WorkerMsg]) -> None:
        """Journal and forward; follow the context's state."""
        match message:
            case Execute():
                self._submit(self._journal.add(message, trio.current_time()), ctx)
                # Inline, and not by a message: nothing of a request is left when its client is gone.
                message.output.call_on_end(partial(self._journal.drop, (message.output.request_id,)))
            case ContextPoisoned(failure, request_ids):
                self._died(request_ids, failure)
            case ContextReady():
                self._engine.tell(WorkerStateChanged(ready=True))
                self._submit(self._journal.opened(trio.current_time()), ctx)
            case ContextRestarting():
                self._journal.closed()
                self._engine.tell(WorkerStateChanged(ready=False))

    async def on_terminated(self, terminated: Terminated, ctx: Context[WorkerMsg]) -> None:
        """A worker without a context cannot work."""
        failure = terminated.failure
        # A session is often a nursery: what went wrong is inside of its group.
        typed = [leaf for leaf in leaves(failure) if isinstance(leaf, InferenceError)] if failure else []
        cause = typed[0] if typed else failure
        raise Unrecoverable(str(cause or terminated.reason)) from cause

    async def post_stop(self, ctx: Context[WorkerMsg]) -> None:
        """Let go of every request that is still in flight."""
        gone = DeploymentUnavailable(self._deployment.name, "the engine has stopped", 1.0)
        for execute in self._journal.in_flight:
            if self._resumes:
                execute.output.give_back(execute.lease)
            else:
                execute.output.fail(gone)

    async def _hold_runner(self) -> None:
        async with self._runner.lifetime():
            await trio.sleep_forever()

    @property
    def _resumes(self) -> bool:
        return self._runner.resumable and self._deployment.idempotent

    def _submit(self, due: list[Execute], ctx: Context[WorkerMsg]) -> None:
        if self._context is None:
            return
        for execute in due:
            self._context.tell(execute)
        trial = self._journal.on_trial
        if trial is not None and trial.output.request_id in [execute.output.request_id for execute in due]:
            ctx.spawn_task(self._follow, trial, ctx, name=f"trial {trial.output.request_id}")
        elif self._journal.holds_suspects and not self._waiting:
            self._waiting = True
            ctx.spawn_task(self._wait_for_trial, ctx, name="before a trial")

    async def _wait_for_trial(self, ctx: Context[WorkerMsg]) -> None:
        await trio.sleep_until(self._journal.next_trial(trio.current_time()))
        self._waiting = False
        self._submit(self._journal.due(trio.current_time()), ctx)

    async def _follow(self, trial: Execute, ctx: Context[WorkerMsg]) -> None:
        await trial.output.wait_told(len(trial.output.tokens.token_ids))
        self._submit(self._journal.acquit(trial, trio.current_time()), ctx)

    def _died(self, request_ids: tuple[str, ...], failure: InferenceError) -> None:
        if not self._resumes:
            for execute in self._journal.drop(request_ids):
                execute.output.fail(failure)
            self._journal.closed()
            return
        from_outside = isinstance(failure, CudaContextPoisoned) and failure.from_outside
        for execute in self._journal.died(request_ids, trio.current_time(), from_outside=from_outside):
            log.error("request %s ends the engine each time it is run: it is not run again", execute.output.request_id)
            execute.output.fail(RequestQuarantined())
