"""Bring a deployment up and say how far it is."""

import logging
import sys
from collections.abc import Callable

import click
import trio
from attrs import evolve
from rich.console import Console

from atomr_trio.core import Deployment, ModelRunner
from atomr_trio.runners import RunnerRegistry
from atomr_trio.runtime import Cluster

from ._model import ModelOptions
from ._pull import fetch

__all__ = ["Loading", "prepare"]

REFRESH = 0.1


def prepare(options: ModelOptions) -> tuple[Deployment, RunnerRegistry]:
    """Return what the options describe, its model fetched if it is one that is loaded here.

    Raises:
        CatalogError: the model's file cannot be had.
        ModelLoadError: there is no such runner.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    deployment, registry = options.deployment(), options.registry()
    if deployment.runtime == "jax":
        deployment = evolve(deployment, model=str(fetch(deployment.model)))
    return deployment, registry


class Loading:
    """Builds runners for a cluster and remembers them, so that their loading can be shown."""

    def __init__(self, registry: RunnerRegistry) -> None:
        self._registry = registry
        self._runners: list[ModelRunner] = []

    @property
    def runners(self) -> list[ModelRunner]:
        """Those that were built, in order."""
        return list(self._runners)

    async def create(self, deployment: Deployment) -> ModelRunner:
        """Build the runner of a deployment."""
        runner = await trio.to_thread.run_sync(self._registry.create, deployment)
        self._runners.append(runner)
        return runner

    async def deploy(self, cluster: Cluster, deployment: Deployment) -> None:
        """Deploy and wait until it serves.

        Raises:
            ModelLoadError: it can never be served.
            DeploymentUnavailable: it failed while loading.
        """
        console = Console(stderr=True)
        if not console.is_terminal:
            click.echo(f"loading {deployment.name}", err=True)
            await cluster.deploy(deployment)
            return
        with console.status(f"loading {deployment.name}") as status:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._show, status.update, deployment.name)
                await cluster.deploy(deployment)
                nursery.cancel_scope.cancel(reason="loaded")

    async def _show(self, update: Callable[[str], None], name: str) -> None:
        while True:
            stages = [runner.loading for runner in self._runners if runner.loading]
            update(f"loading {name}: {'; '.join(stages)}" if stages else f"loading {name}")
            await trio.sleep(REFRESH)

    def describe(self) -> str:
        """Return what serves, in a few words."""
        return "; ".join(filter(None, (runner.description for runner in self._runners)))
