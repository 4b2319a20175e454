"""The runtime as its users see it: prepare a batch, submit it, read the answer."""

import itertools
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import evolve, field, frozen

from atomr_trio.actor import ActorError, ActorRef, Context, Props
from atomr_trio.core import ExecuteBatch, Internal

from .messages import CoordinatorMsg, DeploymentMsg, DeploymentRecord, Dispatch, Get, List, MetricsMsg, RequestMsg
from .request import RequestActor
from .stream import TokenStream

__all__ = ["Directory"]

CATALOG_TIMEOUT = 2.0
"""Seconds the deployment manager gets to answer."""

INLINE_CHARACTERS = 8192
"""Longer prompts are tokenized in a thread: the event loop must not stand still for them."""


@frozen
class Directory:
    """The actors that a front end talks to.

    Args:
        coordinator: routes.
        manager: knows the deployments.
        metrics: counts.
    """

    coordinator: ActorRef[CoordinatorMsg]
    manager: ActorRef[DeploymentMsg]
    metrics: ActorRef[MetricsMsg]
    # One prompt at a time: tokenizers use all cores by themselves, and the engine needs them too.
    _tokenizing: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(1), init=False, eq=False)
    _numbers: "itertools.count[int]" = field(factory=itertools.count, init=False, eq=False)

    async def deployments(self) -> tuple[DeploymentRecord, ...]:
        """Return the record of every deployment.

        Raises:
            Internal: the manager does not answer.
        """
        try:
            return await self.manager.ask(List(), timeout=CATALOG_TIMEOUT)
        except ActorError as failure:
            raise Internal("deployment manager timeout") from failure

    async def deployment(self, name: str) -> DeploymentRecord:
        """Return one record.

        Raises:
            ModelNotFound: there is no deployment of this name.
            Internal: the manager does not answer.
        """
        try:
            return await self.manager.ask(Get(name), timeout=CATALOG_TIMEOUT)
        except ActorError as failure:
            raise Internal("deployment manager timeout") from failure

    async def prepare(self, batch: ExecuteBatch) -> ExecuteBatch:
        """Settle the text side of a batch before any engine sees it.

        Raises:
            ModelNotFound: there is no deployment of this name.
            BadRequest: the prompt does not fit the model's template or vocabulary.
            ContextLengthExceeded: it does not fit the context.
        """
        codec = (await self.deployment(batch.model)).codec
        if codec is None:
            return batch
        if _characters(batch) <= INLINE_CHARACTERS:
            return _seeded(codec.prepare(batch))
        return _seeded(await trio.to_thread.run_sync(codec.prepare, batch, limiter=self._tokenizing))

    @asynccontextmanager
    async def submit(self, batch: ExecuteBatch, parent: Context[Any]) -> AsyncGenerator[TokenStream]:
        """Run a prepared batch in a ``RequestActor`` under ``parent``; leaving the block cancels what still runs."""
        input_tokens = batch.estimated_tokens if batch.prompt_ids is None else len(batch.prompt_ids)
        output = TokenStream(f"{batch.request_id}#{next(self._numbers)}", input_tokens=input_tokens)
        # No shutdown grace: nothing in this actor needs it, and a client that left should not wait for anything.
        props = Props[RequestMsg](
            factory=lambda: RequestActor(self.coordinator, self.metrics, output), capacity=8, shutdown=0.0
        )
        request = parent.spawn_soon(props, f"request-{output.request_id.rpartition('#')[2]}")
        request.tell(Dispatch(batch.model, batch))
        try:
            yield output
        finally:
            output.cancel("the client left")


def _seeded(batch: ExecuteBatch) -> ExecuteBatch:
    # Whichever engine computes the rest of an answer, it has to draw as the first one would have.
    if batch.sampling.seed is not None:
        return batch
    return evolve(batch, sampling=evolve(batch.sampling, seed=random.getrandbits(63)))


def _characters(batch: ExecuteBatch) -> int:
    prompt = len(batch.prompt) if isinstance(batch.prompt, str) else 0
    return prompt + sum(len(message.content) for message in batch.messages if isinstance(message.content, str))
