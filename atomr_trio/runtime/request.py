"""One actor per request: routes it, sees that it ends, and reports how."""

import trio

from atomr_trio.actor import Actor, ActorError, ActorRef, Context
from atomr_trio.core import Backpressure, DeploymentUnavailable, InferenceError, Internal, TokenUsage

from .messages import (
    Add,
    Cancel,
    CoordinatorMsg,
    Dispatch,
    EngineMsg,
    MetricsMsg,
    RecordCancelled,
    RecordFailure,
    RecordSuccess,
    RequestMsg,
    RouteTo,
)
from .stream import TokenStream

__all__ = ["ADMISSION_TIMEOUT", "ROUTE_TIMEOUT", "RequestActor"]

ROUTE_TIMEOUT = 2.0
"""Seconds the coordinator gets to name a target."""

ADMISSION_TIMEOUT = 2.0
"""Seconds the engine gets to admit, queue or refuse."""


class RequestActor(Actor[RequestMsg]):
    """new → routing → admitted → streaming → done (finished, failed or cancelled).

    The chunks never pass through this actor: they go into ``output``, which accumulates them. It holds the request's
    place in the tree: when it stops, for whatever reason, the output has ended.

    Args:
        coordinator: names the engine.
        metrics: gets one record per request.
        output: where the answer goes.
    """

    def __init__(
        self,
        coordinator: ActorRef[CoordinatorMsg],
        metrics: ActorRef[MetricsMsg],
        output: TokenStream,
    ) -> None:
        self._coordinator = coordinator
        self._metrics = metrics
        self._output = output
        self._dispatched: Dispatch | None = None

    async def handle(self, message: RequestMsg, ctx: Context[RequestMsg]) -> None:
        """Start once; cancel at any time."""
        if isinstance(message, Cancel):
            self._output.cancel(message.reason)
            ctx.stop(message.reason)
        elif self._dispatched is None:
            self._dispatched = message
            # In a task, so that a Cancel is handled while the request is being routed.
            ctx.spawn_task(self._run, message, ctx)

    async def post_stop(self, ctx: Context[RequestMsg]) -> None:
        """Make sure that the request ended, and report it once."""
        if self._dispatched is None:
            self._output.cancel("the request was stopped")
            return
        deployment = self._dispatched.deployment
        self._output.fail(DeploymentUnavailable(deployment, "the server is stopping", 1.0))
        self._metrics.tell(self._record(deployment))

    async def _run(self, dispatch: Dispatch, ctx: Context[RequestMsg]) -> None:
        try:
            await self._submit(dispatch)
            await self._output.wait_ended()
        finally:
            ctx.stop("the request is done")

    async def _submit(self, dispatch: Dispatch) -> None:
        try:
            engine = await self._route(dispatch.deployment)
            patience = await engine.ask(Add(dispatch.batch, self._output), timeout=ADMISSION_TIMEOUT)
        except InferenceError as refusal:
            self._output.fail(refusal)
            return
        except ActorError:
            self._output.fail(Internal("engine timeout"))
            return
        with trio.move_on_after(patience) as waiting:
            await self._output.wait_started()
        if waiting.cancelled_caught:
            self._output.fail(Backpressure(f"the request waited {patience:g}s in the queue"))

    async def _route(self, deployment: str) -> ActorRef[EngineMsg]:
        try:
            target = await self._coordinator.ask(RouteTo(deployment), timeout=ROUTE_TIMEOUT)
        except ActorError:
            raise Internal("coordinator timeout") from None
        return target.engine

    def _record(self, deployment: str) -> MetricsMsg:
        usage = self._output.tokens.usage
        if self._output.error is not None:
            return RecordFailure(deployment, self._output.error.kind)
        if self._output.cancel_reason is not None:
            return RecordCancelled(deployment, usage + TokenUsage(output_tokens=len(self._output.tokens.token_ids)))
        return RecordSuccess(deployment, usage)
