"""Which engine gets the next request."""

from typing import Any

from attrs import define, evolve, field

from atomr_trio.actor import Actor, Context, Terminated
from atomr_trio.core import DeploymentUnavailable, ModelNotFound

from .messages import Announce, CoordinatorMsg, Deregister, Register, ReportLoad, RouteTarget, RouteTo

__all__ = ["DpCoordinatorActor", "RoutingTable"]


@define
class _Entry:
    targets: dict[str, RouteTarget] = field(factory=dict[str, RouteTarget])
    reason: str = "no replica is ready"
    retry_after: float | None = 1.0


class RoutingTable:
    """Deployment name → live targets. Pure."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def announce(self, deployment: str, reason: str, retry_after: float | None) -> None:
        """Make the deployment known, and say why it has no target if it has none."""
        entry = self._entries.setdefault(deployment, _Entry())
        entry.reason, entry.retry_after = reason, retry_after

    def register(self, deployment: str, target: RouteTarget) -> None:
        """Add a target, or replace the one of the same path."""
        self._entries.setdefault(deployment, _Entry()).targets[target.engine.path] = target

    def remove_engine(self, path: str) -> None:
        """Forget a target wherever it stands; its deployment stays known."""
        for entry in self._entries.values():
            entry.targets.pop(path, None)

    def forget(self, deployment: str) -> None:
        """Forget a deployment."""
        self._entries.pop(deployment, None)

    def report(self, deployment: str, path: str, load: float) -> None:
        """Set the load of a target; unknown ones are ignored."""
        entry = self._entries.get(deployment)
        if entry is not None and path in entry.targets:
            entry.targets[path] = evolve(entry.targets[path], load=load)

    def route(self, deployment: str) -> RouteTarget:
        """Return the least loaded target, the first one on ties.

        Raises:
            ModelNotFound: nobody announced the deployment.
            DeploymentUnavailable: it has no live target.
        """
        entry = self._entries.get(deployment)
        if entry is None:
            raise ModelNotFound(deployment)
        if not entry.targets:
            raise DeploymentUnavailable(deployment, entry.reason, entry.retry_after)
        return min(entry.targets.values(), key=lambda target: target.load)


class DpCoordinatorActor(Actor[CoordinatorMsg]):
    """Keeps the routing table and removes engines that die."""

    def __init__(self) -> None:
        self._table = RoutingTable()

    async def handle(self, message: CoordinatorMsg, ctx: Context[CoordinatorMsg]) -> Any:
        """Update the table, or route."""
        match message:
            case RouteTo(deployment):
                return self._route(deployment, ctx)
            case ReportLoad(deployment, path, load):
                self._table.report(deployment, path, load)
            case Register(deployment, target):
                self._table.register(deployment, target)
                ctx.watch(target.engine)
            case Announce(deployment, reason, retry_after):
                self._table.announce(deployment, reason, retry_after)
            case Deregister(deployment, path):
                self._deregister(deployment, path)
        return None

    async def on_terminated(self, terminated: Terminated, ctx: Context[CoordinatorMsg]) -> None:
        """Remove a dead engine."""
        self._table.remove_engine(terminated.ref.path)

    def _deregister(self, deployment: str, path: str | None) -> None:
        if path is None:
            self._table.forget(deployment)
        else:
            self._table.remove_engine(path)

    def _route(self, deployment: str, ctx: Context[CoordinatorMsg]) -> RouteTarget | None:
        try:
            target = self._table.route(deployment)
        except (ModelNotFound, DeploymentUnavailable) as refusal:
            ctx.fail(refusal)
            return None
        # Count the request at once: reports lag behind a burst, and all of it would go to one engine.
        self._table.report(deployment, target.engine.path, target.load + 1 / 1024)
        return target
