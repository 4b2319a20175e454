"""The runtime as its users see it: prepare a batch, submit it, read the answer."""

import itertools
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio
from attrs import evolve, field, frozen

from atomr_trio.actor import ActorError, ActorRef, Context, Props
from atomr_trio.core import (
    ExecuteBatch,
    Internal,
    Message,
    PromptCodec,
    TextPart,
    Tokenize,
    Unsupported,
    Vocabulary,
)

from .messages import CoordinatorMsg, DeploymentMsg, DeploymentRecord, Dispatch, Get, List, MetricsMsg, RequestMsg
from .request import RequestActor
from .stream import TokenStream

__all__ = ["Directory"]

R = TypeVar("R")
T = TypeVar("T")

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
    # Those who only ask for tokens may ask for many: prompts do not wait behind them.
    _asked: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(1), init=False, eq=False)
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
            BadRequest: the prompt does not fit the model's template or vocabulary, or the grammar cannot be read.
            ContextLengthExceeded: it does not fit the context.
            Unsupported: the runner cannot keep to a grammar, or makes no embeddings.
        """
        record = await self.deployment(batch.model)
        if batch.embed and record.embeds is False:
            raise Unsupported("embeddings", record.deployment.runtime)
        prepared = await self._tokenized(batch, record.codec)
        # Last, because a codec may set one itself.
        grammar = prepared.sampling.grammar
        if grammar is not None and record.check_grammar is not None:
            await record.check_grammar(grammar)
        return prepared

    async def _tokenized(self, batch: ExecuteBatch, codec: PromptCodec | None) -> ExecuteBatch:
        if codec is None:
            return batch
        if _characters(batch) <= INLINE_CHARACTERS:
            return _seeded(codec.prepare(batch))
        return _seeded(await trio.to_thread.run_sync(codec.prepare, batch, limiter=self._tokenizing))

    async def tokenize(self, question: Tokenize) -> tuple[int, ...]:
        """Return the token ids of a text or of a conversation.

        Raises:
            ModelNotFound: there is no deployment of this name.
            Unsupported: its runtime does not know the model's vocabulary.
            BadRequest: the messages do not fit the model's template.
        """
        vocabulary = await self._vocabulary(question.model, "tokenize")
        return await self._asking(vocabulary.tokenize, question, _characters(question))

    async def spell(self, model: str, ids: Sequence[int]) -> tuple[bytes, ...]:
        """Return the bytes of each token.

        Raises:
            ModelNotFound: there is no deployment of this name.
            Unsupported: its runtime does not know the model's vocabulary.
            BadRequest: an id is outside the vocabulary.
        """
        vocabulary = await self._vocabulary(model, "detokenize")
        return await self._asking(vocabulary.spell, ids, len(ids))

    async def _vocabulary(self, model: str, method: str) -> Vocabulary:
        record = await self.deployment(model)
        if not isinstance(record.codec, Vocabulary):
            raise Unsupported(method, record.deployment.runtime)
        return record.codec

    async def _asking(self, ask: Callable[[T], R], about: T, size: int) -> R:
        if size <= INLINE_CHARACTERS:
            return ask(about)
        return await trio.to_thread.run_sync(ask, about, limiter=self._asked)

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


def _characters(of: ExecuteBatch | Tokenize) -> int:
    text = of.text if isinstance(of, Tokenize) else of.prompt
    offered = 0 if of.tools is None else of.tools.characters
    return (len(text) if isinstance(text, str) else 0) + sum(map(_length, of.messages)) + offered


def _length(message: Message) -> int:
    called = sum(len(call.arguments) for call in message.tool_calls)
    if isinstance(message.content, str):
        return len(message.content) + called
    return sum(len(part.text) for part in message.content if isinstance(part, TextPart)) + called
