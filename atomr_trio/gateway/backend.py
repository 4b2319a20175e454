"""What the gateway asks of the runtime behind it: four questions and one stream."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from attrs import field, frozen

from atomr_trio.core import DeploymentState, ExecuteBatch, TokenChunk, Tokens

__all__ = ["AnswerStream", "GatewayBackend", "ModelInfo", "Readiness"]


@frozen(kw_only=True)
class ModelInfo:
    """A model that can be asked for.

    Args:
        id: what clients put into ``model``; may contain slashes.
        created: Unix seconds.
        owned_by: who made or serves it.
        max_model_len: its context in tokens, if that is known here.
        state: of the deployment that serves it.
    """

    id: str
    created: int
    owned_by: str = "atomr-trio"
    max_model_len: int | None = None
    state: DeploymentState = DeploymentState.SERVING


@frozen(kw_only=True)
class Readiness:
    """Whether new requests can be answered, and the state of each deployment by name."""

    ready: bool
    deployments: Mapping[str, DeploymentState] = field(factory=dict[str, DeploymentState])


class AnswerStream(Protocol):
    """One answer while it comes."""

    async def receive(self) -> TokenChunk:
        """Wait for the next piece: everything that came since the last call, merged.

        Cancelling the wait loses nothing. The last piece, and only it, has a finish reason, and the usage.

        Raises:
            InferenceError: the request failed. There are no further pieces.
            StopAsyncIteration: the last piece was received before.
        """
        ...

    @property
    def tokens(self) -> Tokens:
        """Everything received so far."""
        ...


class GatewayBackend(Protocol):
    """The runtime, as the gateway sees it. All of it is called concurrently."""

    async def models(self) -> Sequence[ModelInfo]:
        """All models, in the order in which they shall be listed."""
        ...

    async def prepare(self, batch: ExecuteBatch, /) -> ExecuteBatch:
        """Check a request before it is submitted, and fill in what its model knows: prompt ids, ``max_tokens``.

        Raises:
            InferenceError: ``ModelNotFound``, ``BadRequest``, ``ContextLengthExceeded``, ``DeploymentUnavailable``, …
        """
        ...

    def submit(self, batch: ExecuteBatch, /) -> AbstractAsyncContextManager[AnswerStream]:
        """Start a request; leaving the block cancels it, in whatever phase it is.

        Entering may raise an ``InferenceError`` too.
        """
        ...

    async def readiness(self) -> Readiness:
        """Answer at once; never wait for a model."""
        ...
