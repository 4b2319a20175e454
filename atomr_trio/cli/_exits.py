"""Exit statuses, and how errors reach the terminal: one line, no traceback."""

from collections.abc import Generator
from contextlib import contextmanager

import click

from atomr_trio.actor import ActorFailed, leaves
from atomr_trio.catalog import CatalogError
from atomr_trio.core import DeploymentUnavailable, InferenceError, ModelLoadError
from atomr_trio.gateway import BindError, KeyFileError

__all__ = ["exits"]

FAILED, USAGE, MODEL, BIND, INTERRUPTED = 1, 2, 3, 4, 130
STATUS: dict[type[InferenceError], int] = {
    BindError: BIND,
    CatalogError: MODEL,
    KeyFileError: USAGE,
    ModelLoadError: MODEL,
    DeploymentUnavailable: MODEL,
}


@contextmanager
def exits() -> Generator[None]:
    """Turn what can go wrong at start-up into one clear line and an exit status; bugs keep their traceback."""
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except Exception as failure:
        # Errors come out of nurseries in groups, and out of an actor's start as a cause.
        for leaf in leaves(failure):
            error = leaf.__cause__ if isinstance(leaf, ActorFailed) else leaf
            if isinstance(error, InferenceError):
                click.echo(f"Error: {error}", err=True)
                raise SystemExit(_status(error)) from None
        raise


def _status(error: InferenceError) -> int:
    return next((status for cls, status in STATUS.items() if isinstance(error, cls)), FAILED)
