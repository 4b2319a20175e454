"""Runtime name → runner class: built in, installed by entry point, or registered by the program."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from atomr_trio.core import Deployment, ModelLoadError, ModelRunner

__all__ = ["RunnerRegistry"]

GROUP = "atomr_trio.runners"


class RunnerRegistry:
    """Finds runner classes. Entry points are imported only when their runtime is asked for."""

    def __init__(self) -> None:
        self._classes: dict[str, type[ModelRunner]] = {}
        self._entry_points: dict[str, EntryPoint] = {point.name: point for point in entry_points(group=GROUP)}

    def register(self, name: str, runner: type[ModelRunner]) -> None:
        """Make ``runtime = name`` mean this runner; replaces one of the same name."""
        self._classes[name] = runner

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._classes, *self._entry_points}))

    def resolve(self, name: str) -> type[ModelRunner]:
        """Return the runner class of a runtime.

        Raises:
            ModelLoadError: there is none, or what its entry point needs is not installed.
        """
        if name in self._classes:
            return self._classes[name]
        if name not in self._entry_points:
            known = ", ".join(self) or "none"
            raise ModelLoadError(f"no runner for runtime {name!r} (known: {known})")
        return _load(self._entry_points[name])

    def create(self, deployment: Deployment) -> ModelRunner:
        """Build the runner of a deployment. May read files: call it in a worker thread.

        Raises:
            ModelLoadError: the runtime is unknown, or the deployment can never be served.
        """
        return self.resolve(deployment.runtime).from_deployment(deployment)


def _load(point: EntryPoint) -> type[ModelRunner]:
    try:
        loaded: Any = point.load()
    except ImportError as missing:
        extra = "; pip install 'atomr-trio[jax]'" if point.name == "jax" else ""
        raise ModelLoadError(f"runtime {point.name!r} needs {missing.name or 'a missing package'}{extra}") from missing
    if not (isinstance(loaded, type) and issubclass(loaded, ModelRunner)):
        raise ModelLoadError(f"the entry point of runtime {point.name!r} is not a ModelRunner")
    return loaded
