"""What the gateway asks of the runtime behind it: a few questions and one stream."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from attrs import field, frozen

from atomr_trio.core import DeploymentState, ExecuteBatch, TokenChunk, Tokenize, Tokens

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

    def take(self) -> TokenChunk | None:
        """The same without waiting; ``None``: nothing has come.

        Raises:
            InferenceError, StopAsyncIteration: as `receive` does.
        """
        ...

    def watch(self, call: Callable[[], None] | None) -> None:
        """Call back whenever there is something to take, at once if there is; ``None``: no longer."""
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

    async def tokenize(self, question: Tokenize, /) -> tuple[int, ...]:
        """The token ids of a text or of a conversation, of any length.

        Raises:
            InferenceError: ``ModelNotFound``, ``BadRequest``, ``Unsupported``.
        """
        ...

    async def spell(self, model: str, ids: Sequence[int], /) -> tuple[bytes, ...]:
        """The bytes of each token; together they are the text.

        Raises:
            InferenceError: ``ModelNotFound``, ``BadRequest``, ``Unsupported``.
        """
        ...

    def submit(self, batch: ExecuteBatch, /) -> AbstractAsyncContextManager[AnswerStream]:
        """Start a request; leaving the block cancels it, in whatever phase it is.

        Entering may raise an ``InferenceError`` too.
        """
        ...

    async def pricing(self, model: str, /) -> Callable[[ExecuteBatch], float]:
        """What a batch of this model may cost at most, in USD. Asked only for keys with a budget in USD.

        Raises:
            ModelNotFound: there is no such model.
        """
        ...

    async def readiness(self) -> Readiness:
        """Answer at once; never wait for a model."""
        ...
