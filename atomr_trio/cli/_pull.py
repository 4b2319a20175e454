"""`atomr-trio pull`: fetch a model into the cache, with a progress bar on a terminal."""

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from atomr_trio import catalog

from ._exits import exits

__all__ = ["fetch", "pull"]


def fetch(model: str, *, verify: bool = False) -> Path:
    """Return the path of a model's file, fetching it first if it is not in the cache.

    Raises:
        CatalogError: it cannot be had.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        return catalog.ensure_model(catalog.default_catalog(), model, verify=verify, on_progress=_Bars(bars, model))


class _Bars:
    """One bar per stage; a stage is announced by its first report."""

    def __init__(self, bars: Progress, model: str) -> None:
        self._bars = bars
        self._model = model
        self._tasks: dict[str, Any] = {}

    def __call__(self, progress: catalog.Progress) -> None:
        if progress.stage not in self._tasks:
            self._tasks[progress.stage] = self._bars.add_task(f"{progress.stage} {self._model}", total=None)
            if self._bars.disable:
                click.echo(f"{self._model}: {progress.stage}", err=True)
        self._bars.update(self._tasks[progress.stage], completed=progress.done, total=progress.total or None)


@click.command()
@click.argument("model", default=catalog.DEFAULT_MODEL)
@click.option("--verify", is_flag=True, help="Hash the cached file again, and fetch it anew if it is damaged.")
def pull(model: str, verify: bool) -> None:
    """Fetch MODEL (a catalogue name, a path, or hf:ORG/REPO/FILE.gguf) and print where it is."""
    with exits():
        click.echo(fetch(model, verify=verify))
