"""The interface that every runtime implements: a custom runner is one method."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import ClassVar, Protocol, Self

from ._deployment import Deployment, RuntimeKind, TransportKind
from ._errors import Unsupported
from ._grammar import Grammar
from ._messages import ExecuteBatch
from ._output import TokenChunk

__all__ = ["ChunkSink", "ModelRunner", "PromptCodec"]


class ChunkSink(Protocol):
    """Where a runner puts its answer."""

    async def send(self, chunk: TokenChunk, /) -> None:
        """Hand over one chunk; waits while the reader is more than 64 chunks behind."""
        ...

    def push(self, chunk: TokenChunk, /) -> None:
        """Hand over one chunk without waiting.

        For runners that must never be held by a slow reader: pending text is merged. What they push is bounded by
        the request's own ``max_tokens``.
        """
        ...


class PromptCodec(Protocol):
    """The text side of a model: what the gateway needs to refuse a bad request before any actor sees it."""

    @property
    def max_model_len(self) -> int:
        """The model's context, in tokens."""
        ...

    def prepare(self, batch: ExecuteBatch, /) -> ExecuteBatch:
        """Return the batch with ``prompt_ids`` and ``form`` filled in and ``sampling`` settled. Pure; may take ms.

        Where a function must be called, ``sampling.grammar`` says so.

        Raises:
            BadRequest: the messages do not fit the model's template, or a token id is out of range.
            ContextLengthExceeded: the prompt does not fit the context.
        """
        ...


class ModelRunner(ABC):
    """Runs requests. One instance serves one replica, through all restarts of its context.

    ``execute`` is called concurrently; the engine core bounds how often.
    """

    resumable: ClassVar[bool] = False
    """True when a request can be continued from ``batch.generated``."""

    calls_tools: ClassVar[bool] = False
    """True when it makes calls of ``batch.tools`` itself and tells them as ``tool_call_delta``, instead of as text."""

    embeds: ClassVar[bool] = False
    """True when it answers batches that say ``embed`` with an embedding. The others are never given one."""

    @classmethod
    def from_deployment(cls, deployment: Deployment, /) -> Self:
        """Build the runner for a deployment. Runs in a worker thread: may read files, must not need Trio.

        Raises:
            ModelLoadError: the deployment can never be served.
        """
        return cls()

    @abstractmethod
    async def execute(self, batch: ExecuteBatch, out: ChunkSink, /) -> None:
        """Answer one request.

        Returning ends it with finish reason ``stop`` (unless a chunk said otherwise); raising ends it with that
        error; being cancelled means that the client left.
        """

    @asynccontextmanager
    async def lifetime(self) -> AsyncGenerator[None]:
        """Hold open what outlives sessions: entered once for a replica, and left when it stops.

        An exception out of it ends the replica.
        """
        yield

    @asynccontextmanager
    async def session(self) -> AsyncGenerator[None]:
        """Hold open what requests need (a process, a client): entered in each incarnation of the context.

        An exception out of it fails the context: ``CudaContextPoisoned`` restarts it, ``Unrecoverable``
        gives up. It is left before the next incarnation enters it.
        """
        yield

    async def check_grammar(self, grammar: Grammar, /) -> None:
        """Return if answers will keep to ``batch.sampling.grammar``; asked before such a request is executed.

        A runner that can guide its answers overrides it.

        Raises:
            Unsupported: this runner cannot, as is the case unless it says otherwise.
            BadRequest: it can, but not with this grammar; ``param`` is ``grammar``.
        """
        raise Unsupported("structured output", self.runtime_kind)

    @property
    def codec(self) -> PromptCodec | None:
        """The text side of the model, if it is known here."""
        return None

    @property
    def runtime_kind(self) -> RuntimeKind:
        """The name of this kind of runner."""
        return type(self).__name__.removesuffix("Runner").lower() or "custom"

    @property
    def transport_kind(self) -> TransportKind:
        """Where the work happens."""
        return TransportKind.UNKNOWN

    @property
    def loading(self) -> str | None:
        """How far loading is, for people; ``None`` when it is done or unknown."""
        return None

    @property
    def description(self) -> str | None:
        """What it runs on, for people."""
        return None

    def estimate_cost_usd(self, batch: ExecuteBatch, /) -> float:
        """What this request may cost at most, in USD."""
        return 0.0
