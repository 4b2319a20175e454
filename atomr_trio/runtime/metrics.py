"""Counters per deployment."""

from typing import Any

from attrs import evolve

from atomr_trio.actor import Actor, Context

from .messages import (
    DeploymentMetrics,
    MetricsMsg,
    RecordCancelled,
    RecordFailure,
    RecordLate,
    RecordSuccess,
    Snapshot,
)

__all__ = ["MetricsActor", "record"]


def record(
    before: DeploymentMetrics, message: RecordSuccess | RecordFailure | RecordCancelled | RecordLate
) -> DeploymentMetrics:
    """Return the counters after one record: each request has one, and those whose client left may have late ones."""
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
            return evolve(
                before,
                requests_cancelled=before.requests_cancelled + 1,
                usage=before.usage + usage,
                usage_cancelled=before.usage_cancelled + usage,
            )
        case RecordLate(_, tokens):
            return evolve(before, late_tokens=before.late_tokens + tokens)


class MetricsActor(Actor[MetricsMsg]):
    """Takes one record per request, whatever its end, and one whenever tokens were made for nobody."""

    def __init__(self) -> None:
        self._deployments: dict[str, DeploymentMetrics] = {}

    async def handle(self, message: MetricsMsg, ctx: Context[MetricsMsg]) -> Any:
        """Count, or answer with a copy."""
        if isinstance(message, Snapshot):
            return dict(self._deployments)
        before = self._deployments.get(message.deployment, DeploymentMetrics())
        self._deployments[message.deployment] = record(before, message)
        return None
