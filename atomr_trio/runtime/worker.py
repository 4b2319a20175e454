"""The stable half of an engine: it supervises the context and knows which requests are in it."""

from atomr_trio.actor import Actor, ActorRef, Context, Directive, Props, SupervisorStrategy, Terminated
from atomr_trio.core import (
    CudaContextPoisoned,
    DeploymentUnavailable,
    InferenceError,
    ModelRunner,
    OutOfMemory,
    Unrecoverable,
)

from .context import ContextActor
from .messages import (
    ContextPoisoned,
    ContextReady,
    ContextRestarting,
    EngineMsg,
    Execute,
    WorkerMsg,
    WorkerStateChanged,
)

__all__ = ["CONTEXT_STRATEGY", "WorkerActor", "decide_context"]

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


CONTEXT_STRATEGY = SupervisorStrategy(decider=decide_context, max_restarts=3, within=60.0)
"""Four incarnations in a minute; the fourth failure ends the replica."""


class WorkerActor(Actor[WorkerMsg]):
    """Keeps the journal of requests in flight and passes them to the context.

    A request that the context has not taken up when it dies stays in its mailbox and is served by the next
    incarnation. One that it had taken up ends with one typed error.
    """

    supervisor_strategy = CONTEXT_STRATEGY

    def __init__(self, deployment: str, runner: ModelRunner, engine: ActorRef[EngineMsg]) -> None:
        self._deployment = deployment
        self._runner = runner
        self._engine = engine
        self._journal: dict[str, Execute] = {}
        self._context: ActorRef[Execute] | None = None

    async def pre_start(self, ctx: Context[WorkerMsg]) -> None:
        """Start the first context without waiting for its load."""
        props = Props[Execute](factory=lambda: ContextActor(self._runner, ctx.self_ref))
        self._context = ctx.spawn_soon(props, "context")
        ctx.watch(self._context)

    async def handle(self, message: WorkerMsg, ctx: Context[WorkerMsg]) -> None:
        """Journal and forward; follow the context's state."""
        match message:
            case Execute():
                self._execute(message)
            case ContextPoisoned(failure, request_ids):
                self._fail(request_ids, failure)
            case ContextReady():
                self._engine.tell(WorkerStateChanged(ready=True))
            case ContextRestarting():
                self._engine.tell(WorkerStateChanged(ready=False))

    async def on_terminated(self, terminated: Terminated, ctx: Context[WorkerMsg]) -> None:
        """A worker without a context cannot work."""
        raise Unrecoverable(str(terminated.failure or terminated.reason)) from terminated.failure

    async def post_stop(self, ctx: Context[WorkerMsg]) -> None:
        """End every request that is still in flight."""
        gone = DeploymentUnavailable(self._deployment, "the engine has stopped", 1.0)
        self._fail(tuple(self._journal), gone)

    def _execute(self, message: Execute) -> None:
        self._journal = {key: entry for key, entry in self._journal.items() if not entry.output.ended}
        self._journal[message.output.request_id] = message
        if self._context is not None:
            self._context.tell(message)

    def _fail(self, request_ids: tuple[str, ...], failure: InferenceError) -> None:
        for request_id in request_ids:
            entry = self._journal.pop(request_id, None)
            if entry is not None:
                entry.output.fail(failure)
