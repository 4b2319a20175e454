"""One actor per request: routes it, sees that it ends, and reports how."""

import trio
from attrs import evolve

from atomr_trio.actor import Actor, ActorError, ActorRef, ActorStopped, Context
from atomr_trio.core import Backpressure, DeploymentUnavailable, InferenceError, Internal

from .journal import resumed
from .messages import (
    Add,
    Cancel,
    CoordinatorMsg,
    Deregister,
    Dispatch,
    EngineMsg,
    MetricsMsg,
    RecordCancelled,
    RecordFailure,
    RecordLate,
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

    An engine that is gone gives its requests back: each is routed again, and another replica goes on with its answer.

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
            # Which may be when this actor is gone.
            self._output.call_when_late(lambda tokens: self._metrics.tell(RecordLate(message.deployment, tokens)))
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
            while not self._output.ended:
                self._output.lend()
                await self._submit(dispatch)
                await self._output.wait_parted()
        finally:
            ctx.stop("the request is done")

    @property
    def _told(self) -> tuple[int, ...]:
        return tuple(self._output.tokens.token_ids)

    async def _submit(self, dispatch: Dispatch) -> None:
        try:
            engine = await self._route(dispatch.deployment)
            patience = await self._ask(engine, dispatch)
        except InferenceError as refusal:
            self._output.fail(refusal)
            return
        except ActorError:
            self._output.fail(Internal("engine timeout"))
            return
        if patience is None:
            return
        with trio.move_on_after(patience) as waiting:
            await self._output.wait_started()
        if waiting.cancelled_caught:
            self._output.fail(Backpressure(f"the request waited {patience:g}s in the queue"))

    async def _ask(self, engine: ActorRef[EngineMsg], dispatch: Dispatch) -> float | None:
        """Return how long the request may wait in the engine's queue; ``None`` if the engine is gone."""
        add = Add(resumed(dispatch.batch, self._told), self._output, self._output.lease)
        try:
            patience = await engine.ask(add, timeout=ADMISSION_TIMEOUT)
        except ActorStopped:
            patience = None
        if patience is None:
            # The coordinator may not know it yet, and would name the same one again.
            self._coordinator.tell(Deregister(dispatch.deployment, engine.path))
            self._output.give_back(add.lease)
        return patience

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
            return RecordCancelled(deployment, evolve(usage, output_tokens=self._output.output_tokens))
        return RecordSuccess(deployment, usage)
