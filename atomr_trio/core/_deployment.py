"""What an operator asks for: deployments and their parts."""

import enum
from typing import Any

from attrs import field, frozen, validators

__all__ = [
    "CapacityPolicy",
    "Deployment",
    "DeploymentState",
    "ProviderKind",
    "RuntimeKind",
    "Serving",
    "TransportKind",
]

RuntimeKind = str
"""A runtime's name in the runner registry: ``jax``, ``echo``, ``open_ai``, or a user's own."""

ProviderKind = str
"""A remote provider's name."""


class TransportKind(enum.StrEnum):
    """Where the work happens."""

    LOCAL_GPU = "local_gpu"
    LOCAL_CPU = "local_cpu"
    REMOTE_NETWORK = "remote_network"
    UNKNOWN = "unknown_transport"


class CapacityPolicy(enum.StrEnum):
    """What happens to a request that arrives when the deployment is full."""

    REJECT = "reject"
    QUEUE = "queue"
    FALLBACK = "fallback"


class DeploymentState(enum.StrEnum):
    """Life cycle of a deployment."""

    PENDING = "pending"
    SERVING = "serving"
    RECOVERING = "recovering"
    DRAINING = "draining"
    FAILED = "failed"


@frozen(kw_only=True)
class Serving:
    """How much a deployment does at once, per replica.

    Args:
        max_concurrent: requests that run at once.
        queue_capacity: requests that wait beyond those.
        queue_timeout: seconds that a request waits before it is refused.
        on_capacity_exhausted: what happens to a request that finds all places taken.
    """

    max_concurrent: int = field(default=32, validator=validators.ge(1))
    queue_capacity: int = field(default=1024, validator=validators.ge(0))
    queue_timeout: float = field(default=60.0, validator=validators.gt(0))
    on_capacity_exhausted: CapacityPolicy = field(default=CapacityPolicy.QUEUE, converter=CapacityPolicy)


@frozen(kw_only=True)
class Deployment:
    """A model under a name, and how to serve it.

    Args:
        name: what clients put into ``model``.
        model: what the runtime loads: a catalogue name, a path, or a provider's model name.
        runtime: the runner's name in the registry.
        runtime_config: values for the runner, read by it.
        replicas: how many engines, at least 1.
        serving: limits per replica.
        idempotent: a request may be computed again after a failure.
        max_restarts: how often a replica's context may fail within ``restart_window`` and be replaced; once more, and
            the replica has failed.
        restart_window: seconds.

    Raises:
        ValueError: a name is empty or there are no replicas.
    """

    name: str = field(validator=validators.min_len(1))
    model: str = field(validator=validators.min_len(1))
    runtime: RuntimeKind = "jax"
    runtime_config: dict[str, Any] = field(factory=dict[str, Any])
    replicas: int = field(default=1, validator=validators.ge(1))
    serving: Serving = field(factory=Serving)
    idempotent: bool = True
    max_restarts: int = field(default=3, validator=validators.ge(0))
    restart_window: float = field(default=60.0, validator=validators.gt(0))
