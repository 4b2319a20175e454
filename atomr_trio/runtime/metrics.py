"""Counters per deployment."""

from typing import Any

from attrs import evolve

from atomr_trio.actor import Actor, Context

from .messages import DeploymentMetrics, MetricsMsg, RecordCancelled, RecordFailure, RecordSuccess, Snapshot

__all__ = ["MetricsActor", "record"]


def record(before: DeploymentMetrics, message: RecordSuccess | RecordFailure | RecordCancelled) -> DeploymentMetrics:
    """Return the counters after one request has ended."""
    match message:
        case RecordSuccess(_, usage, cost_usd):
            return evolve(
                before,
                requests_succeeded=before.requests_succeeded + 1,
                usage=before.usage + usage,
                cost_usd=before.cost_usd + cost_usd,
            )
        case RecordFailure(_, kind):
            failures = {**before.failures, kind: before.failures.get(kind, 0) + 1}
            return evolve(before, requests_failed=before.requests_failed + 1, failures=failures)
        case RecordCancelled(_, usage):
            return evolve(before, requests_cancelled=before.requests_cancelled + 1, usage=before.usage + usage)


class MetricsActor(Actor[MetricsMsg]):
    """Takes one record per request, whatever its end."""

    def __init__(self) -> None:
        self._deployments: dict[str, DeploymentMetrics] = {}

    async def handle(self, message: MetricsMsg, ctx: Context[MetricsMsg]) -> Any:
        """Count, or answer with a copy."""
        if isinstance(message, Snapshot):
            return dict(self._deployments)
        before = self._deployments.get(message.deployment, DeploymentMetrics())
        self._deployments[message.deployment] = record(before, message)
        return None
