"""Everything that can go wrong with a request, as typed errors.

Each class says three things: its ``kind`` (the tag it is serialised under), whether a client or a retry policy may
try again (``retryable``), and whether it counts against a provider's circuit breaker (``counts_for_breaker``). The
gateway maps them to HTTP in one table. Messages are shown to clients: no paths, addresses or tracebacks in them.
"""

from typing import Any, ClassVar

import attrs
from attrs import define

__all__ = [
    "Backpressure",
    "BadRequest",
    "BudgetExceeded",
    "CircuitOpen",
    "ContentFiltered",
    "ContextLengthExceeded",
    "CudaContextPoisoned",
    "DeploymentUnavailable",
    "Forbidden",
    "InferenceError",
    "Internal",
    "ModelLoadError",
    "ModelNotFound",
    "NetworkError",
    "OutOfMemory",
    "RateLimited",
    "RequestQuarantined",
    "ServerError",
    "Timeout",
    "Unauthorized",
    "Unrecoverable",
    "Unsupported",
]


@define
class InferenceError(Exception):
    """Base of every error that can end a request."""

    kind: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    counts_for_breaker: ClassVar[bool] = False

    def to_dict(self) -> dict[str, Any]:
        """Return the fields under an inner tag ``kind``; fields that are ``None`` are left out."""
        fields = attrs.asdict(self, filter=lambda _attribute, value: value is not None)
        return {"kind": self.kind, **fields}


@define
class RateLimited(InferenceError):
    """The upstream answered 429. ``retry_after`` is in seconds."""

    kind: ClassVar[str] = "rate_limited"
    retryable: ClassVar[bool] = True
    provider: str
    retry_after: float | None = None

    def __str__(self) -> str:
        after = "" if self.retry_after is None else f" (retry after {self.retry_after:g}s)"
        return f"rate-limited{after}"


@define
class CircuitOpen(InferenceError):
    """The provider's circuit breaker is open. Times are Unix milliseconds."""

    kind: ClassVar[str] = "circuit_open"
    provider: str
    opened_at_unix_ms: int
    retry_at_unix_ms: int

    def __str__(self) -> str:
        return f"circuit open for {self.provider} until {self.retry_at_unix_ms} (opened at {self.opened_at_unix_ms})"


@define
class ContentFiltered(InferenceError):
    """The provider refused the content."""

    kind: ClassVar[str] = "content_filtered"
    reason: str

    def __str__(self) -> str:
        return f"content filtered: {self.reason}"


@define
class ContextLengthExceeded(InferenceError):
    """The prompt (and what was asked after it) does not fit the model's context."""

    kind: ClassVar[str] = "context_length_exceeded"
    tokens: int
    max_tokens: int

    def __str__(self) -> str:
        return f"context length exceeded ({self.tokens} > {self.max_tokens})"


@define
class BadRequest(InferenceError):
    """The request itself is wrong. ``param`` names the offending field, where there is one."""

    kind: ClassVar[str] = "bad_request"
    message: str
    param: str | None = None

    def __str__(self) -> str:
        return f"bad request: {self.message}"


@define
class Unsupported(InferenceError):
    """The request is well-formed, but this runtime cannot do it."""

    kind: ClassVar[str] = "unsupported"
    method: str
    runtime: str

    def __str__(self) -> str:
        return f"unsupported: {self.method} on runtime {self.runtime}"


@define
class Unauthorized(InferenceError):
    """The upstream did not accept our credentials."""

    kind: ClassVar[str] = "unauthorized"
    message: str

    def __str__(self) -> str:
        return f"unauthorized: {self.message}"


@define
class Forbidden(InferenceError):
    """The upstream knows us and says no."""

    kind: ClassVar[str] = "forbidden"
    message: str

    def __str__(self) -> str:
        return f"forbidden: {self.message}"


@define
class ModelNotFound(InferenceError):
    """No deployment has this name."""

    kind: ClassVar[str] = "model_not_found"
    model: str

    def __str__(self) -> str:
        return f"the model `{self.model}` does not exist"


@define
class DeploymentUnavailable(InferenceError):
    """The deployment is known, but no replica of it can take work. ``retry_after`` is in seconds."""

    kind: ClassVar[str] = "deployment_unavailable"
    deployment: str
    reason: str
    retry_after: float | None = None

    def __str__(self) -> str:
        return f"deployment `{self.deployment}` is unavailable: {self.reason}"


@define
class Backpressure(InferenceError):
    """A queue, an engine or a local limiter is full."""

    kind: ClassVar[str] = "backpressure"
    message: str
    retry_after: float | None = 1.0

    def __str__(self) -> str:
        return f"backpressure: {self.message}"


@define
class BudgetExceeded(InferenceError):
    """The deployment's spending ceiling is reached."""

    kind: ClassVar[str] = "budget_exceeded"
    deployment: str

    def __str__(self) -> str:
        return f"budget exceeded for `{self.deployment}`"


@define
class NetworkError(InferenceError):
    """Transport trouble with an upstream, a truncated stream included."""

    kind: ClassVar[str] = "network_error"
    retryable: ClassVar[bool] = True
    counts_for_breaker: ClassVar[bool] = True
    message: str

    def __str__(self) -> str:
        return f"network error: {self.message}"


@define
class ServerError(InferenceError):
    """The upstream answered 5xx."""

    kind: ClassVar[str] = "server_error"
    retryable: ClassVar[bool] = True
    counts_for_breaker: ClassVar[bool] = True
    status: int
    body: str | None = None

    def __str__(self) -> str:
        return f"server error: {self.status}"


@define
class Timeout(InferenceError):
    """A first-byte, read, queue or route timeout."""

    kind: ClassVar[str] = "timeout"
    retryable: ClassVar[bool] = True
    counts_for_breaker: ClassVar[bool] = True
    elapsed_ms: int

    def __str__(self) -> str:
        return f"timeout after {self.elapsed_ms}ms"


@define
class CudaContextPoisoned(InferenceError):
    """The device context is lost: a sticky device error, a hang, or the device process died.

    The name is the seed's; on a CPU it means that the device process is gone. Supervision tag ``ContextPoisoned``.

    Args:
        message: what happened.
        from_outside: somebody ended it: less of a sign that a request did.
    """

    kind: ClassVar[str] = "cuda_context_poisoned"
    message: str
    from_outside: bool = False

    def __str__(self) -> str:
        return f"CUDA context poisoned: {self.message}"


@define
class OutOfMemory(InferenceError):
    """The device ran out of memory; its context is healthy. Supervision tag ``OutOfMemory``."""

    kind: ClassVar[str] = "out_of_memory"
    message: str

    def __str__(self) -> str:
        return f"out of memory: {self.message}"


@define
class Unrecoverable(InferenceError):
    """Restarting cannot help. Supervision tag ``Unrecoverable``."""

    kind: ClassVar[str] = "unrecoverable"
    message: str

    def __str__(self) -> str:
        return f"unrecoverable: {self.message}"


@define
class ModelLoadError(Unrecoverable):
    """The model file is missing, truncated, of an unsupported architecture, or does not fit."""

    kind: ClassVar[str] = "model_load_error"

    def __str__(self) -> str:
        return f"cannot load the model: {self.message}"


@define
class RequestQuarantined(InferenceError):
    """The engine died of this very request, alone with it: it is not run again."""

    kind: ClassVar[str] = "request_quarantined"

    def __str__(self) -> str:
        return "the engine fails each time that it computes this request"


@define
class Internal(InferenceError):
    """Everything else: a bug of ours or of a runner."""

    kind: ClassVar[str] = "internal"
    message: str

    def __str__(self) -> str:
        return f"internal: {self.message}"
