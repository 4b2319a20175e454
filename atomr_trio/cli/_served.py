"""What a server says of its work when it ends."""

from typing import Any

from atomr_trio.actor import ActorError
from atomr_trio.gateway.logs import Log
from atomr_trio.runtime import Cluster, DeploymentMetrics

__all__ = ["served_fields", "tell_served"]


def served_fields(counted: DeploymentMetrics) -> dict[str, Any]:
    """Return the fields of the last line about a deployment. ``tokens_left`` are part of ``tokens_out``."""
    return {
        "succeeded": counted.requests_succeeded,
        "failed": counted.requests_failed,
        "left": counted.requests_cancelled,
        "tokens_in": counted.usage.input_tokens,
        "tokens_out": counted.usage.output_tokens,
        "tokens_left": counted.usage_cancelled.output_tokens,
        "tokens_late": counted.late_tokens,
    }


async def tell_served(cluster: Cluster, log: Log) -> None:
    """Write a line for each deployment that was asked for something."""
    try:
        metrics = await cluster.metrics()
    except ActorError:
        # A server that cannot count any more ends all the same.
        return
    for name, counted in metrics.items():
        log.info("served", deployment=name, **served_fields(counted))
