"""What the runtime's actors say to each other. Names and fields are the seed's where it had them."""

from collections.abc import Awaitable, Callable

from attrs import field, frozen

from atomr_trio.actor import ActorRef, Request
from atomr_trio.core import (
    Deployment,
    DeploymentState,
    ExecuteBatch,
    Grammar,
    InferenceError,
    PromptCodec,
    TokenUsage,
)

from .stream import TokenStream

__all__ = [
    "Add",
    "Announce",
    "Apply",
    "AwaitSettled",
    "Cancel",
    "ContextPoisoned",
    "ContextReady",
    "ContextRestarting",
    "CoordinatorMsg",
    "DeploymentMetrics",
    "DeploymentMsg",
    "DeploymentRecord",
    "Deregister",
    "Dispatch",
    "Drain",
    "EngineMsg",
    "EngineStateChanged",
    "Execute",
    "Get",
    "GetLoad",
    "List",
    "MetricsMsg",
    "RecordCancelled",
    "RecordFailure",
    "RecordLate",
    "RecordSuccess",
    "Register",
    "Remove",
    "ReportLoad",
    "RequestMsg",
    "RouteTarget",
    "RouteTo",
    "Snapshot",
    "WorkerMsg",
    "WorkerStateChanged",
]


# To the RequestActor.


@frozen
class Dispatch:
    """Route the request and run it. A second one is ignored."""

    deployment: str
    batch: ExecuteBatch


@frozen
class Cancel:
    """Nobody reads the answer any more."""

    reason: str = "cancelled"


RequestMsg = Dispatch | Cancel


# To the EngineCoreActor.


@frozen
class Add(Request[float | None]):
    """Take a request: refused with ``Backpressure``, or answered with the seconds it may wait in the queue.

    ``None``: the engine takes no more, and somebody else has to be asked. ``lease`` is the number under which the
    engine has the stream.
    """

    batch: ExecuteBatch
    output: TokenStream
    lease: int = 0


@frozen
class GetLoad(Request[float]):
    """Ask for requests in flight and queued, over ``max_concurrent``."""


@frozen
class Drain:
    """Refuse new requests; stop when the last one is done."""


@frozen
class WorkerStateChanged:
    """The worker's context became ready, or stopped being so."""

    ready: bool


EngineMsg = Add | GetLoad | Drain | WorkerStateChanged


# To the WorkerActor and the ContextActor.


@frozen
class Execute:
    """Run a request; chunks go to ``output``, which the engine has under the number ``lease``."""

    batch: ExecuteBatch
    output: TokenStream
    lease: int = 0


@frozen
class ContextRestarting:
    """A context starts to load."""


@frozen
class ContextReady:
    """The context can execute."""

    incarnation: int


@frozen
class ContextPoisoned:
    """The context's incarnation died with these requests in it."""

    failure: InferenceError
    request_ids: tuple[str, ...]


WorkerMsg = Execute | ContextRestarting | ContextReady | ContextPoisoned


# To the DpCoordinatorActor.


@frozen
class RouteTarget:
    """A typed target: it can be sent a request. Lower load is better."""

    engine: ActorRef[EngineMsg]
    load: float = 0.0


@frozen
class Announce:
    """The deployment exists, with or without live replicas; ``reason`` says why it has none."""

    deployment: str
    reason: str = "no replica is ready"
    retry_after: float | None = 1.0


@frozen
class Register:
    """An engine takes requests; replaces an entry of the same path."""

    deployment: str
    target: RouteTarget


@frozen
class Deregister:
    """An engine takes no more requests; without a path, the whole deployment is forgotten."""

    deployment: str
    engine_path: str | None = None


@frozen
class ReportLoad:
    """An engine's load."""

    deployment: str
    engine_path: str
    load: float


@frozen
class RouteTo(Request[RouteTarget]):
    """Ask for the least loaded engine of a deployment."""

    deployment: str


CoordinatorMsg = Announce | Register | Deregister | ReportLoad | RouteTo


# To the DeploymentManagerActor.


@frozen(kw_only=True)
class DeploymentRecord:
    """A deployment and how it is.

    Args:
        deployment: what was applied.
        state: where it is in its life.
        reason: why it failed.
        codec: the text side of its model.
        check_grammar: refuses the grammars that it cannot keep to; ``None`` while the runner is being built.
        embeds: it makes embeddings; ``None`` while the runner is being built.
        price: what a batch may cost at most, in USD.
        created: Unix time in seconds.
    """

    deployment: Deployment
    state: DeploymentState = DeploymentState.PENDING
    reason: str | None = None
    codec: PromptCodec | None = field(default=None, eq=False, repr=False)
    check_grammar: Callable[[Grammar], Awaitable[None]] | None = field(default=None, eq=False, repr=False)
    embeds: bool | None = field(default=None, eq=False, repr=False)
    price: Callable[[ExecuteBatch], float] | None = field(default=None, eq=False, repr=False)
    created: int = 0


@frozen
class Apply(Request[DeploymentRecord]):
    """Serve a deployment. Answered when its engines start to load."""

    deployment: Deployment


@frozen
class Remove(Request[None]):
    """Drain a deployment and forget it."""

    name: str


@frozen
class Get(Request[DeploymentRecord]):
    """Ask for one record; refused with ``ModelNotFound``."""

    name: str


@frozen
class List(Request[tuple[DeploymentRecord, ...]]):
    """Ask for all records."""


@frozen
class AwaitSettled(Request[DeploymentRecord]):
    """Ask for one record once it is neither loading nor recovering; refused with ``ModelNotFound``."""

    name: str


@frozen
class EngineStateChanged:
    """A replica became ready, or stopped being so."""

    deployment: str
    engine_path: str
    ready: bool


DeploymentMsg = Apply | Remove | Get | List | AwaitSettled | EngineStateChanged


# To the MetricsActor.


@frozen
class RecordSuccess:
    """A request ended well."""

    deployment: str
    usage: TokenUsage
    cost_usd: float = 0.0


@frozen
class RecordFailure:
    """A request ended with an error; ``kind`` is the error's."""

    deployment: str
    kind: str


@frozen
class RecordCancelled:
    """The client left; ``usage`` is what was made for it until then."""

    deployment: str
    usage: TokenUsage


@frozen
class RecordLate:
    """So many tokens were made for a client after it was seen to have left."""

    deployment: str
    tokens: int


@frozen
class DeploymentMetrics:
    """Counters of one deployment.

    Args:
        requests_succeeded: that ended well.
        requests_failed: that ended with an error.
        requests_cancelled: whose client left before the end.
        failures: failed requests by the kind of their error.
        usage: tokens of those that ended well, and of those whose client left, up to when that was seen.
        cost_usd: of those that ended well.
        usage_cancelled: the part of ``usage`` that went to those whose client left.
        late_tokens: tokens made for clients after they were seen to have left; in no usage. They are what steps draw
            that were on the device then, and what came back since.
    """

    requests_succeeded: int = 0
    requests_failed: int = 0
    requests_cancelled: int = 0
    failures: dict[str, int] = field(factory=dict[str, int])
    usage: TokenUsage = field(factory=TokenUsage)
    cost_usd: float = 0.0
    usage_cancelled: TokenUsage = field(factory=TokenUsage)
    late_tokens: int = 0


@frozen
class Snapshot(Request[dict[str, DeploymentMetrics]]):
    """Ask for a copy of all counters."""


MetricsMsg = RecordSuccess | RecordFailure | RecordCancelled | RecordLate | Snapshot
