"""From the MODEL argument to a deployment: what both `serve` and `chat` take."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from attrs import frozen

from atomr_trio.catalog import DEFAULT_MODEL, default_catalog
from atomr_trio.core import Deployment, ModelLoadError, ModelRunner, Serving
from atomr_trio.runners import RunnerRegistry

__all__ = ["ModelOptions", "model_options"]

F = TypeVar("F", bound=Callable[..., Any])
DTYPES = ("auto", "float32", "bfloat16", "int8")
LOAD_FORMATS = ("auto", "dummy")
TOOL_STYLES = ("auto", "none", "hermes", "llama3", "mistral", "mistral-args", "gemma", "smollm")
POOLINGS = ("auto", "last", "mean")
THOUGHT_STYLES = ("auto", "none", "think", "mistral")


@frozen(kw_only=True)
class ModelOptions:
    """The options that say what is served."""

    model: str | None
    name: str | None
    runtime: str
    dtype: str
    load_format: str = "auto"
    tensor_parallel: int = 1
    max_model_len: int | None
    max_concurrent: int
    kv_tokens: int | None
    tool_style: str = "auto"
    thought_style: str = "auto"
    spare: str = "none"
    pooling: str = "auto"
    warm_embeddings: bool = False

    def deployment(self) -> Deployment:
        """Return the deployment they describe."""
        model = self.model or (DEFAULT_MODEL if self.runtime == "jax" else self.runtime.rpartition(":")[2].lower())
        return Deployment(
            name=self.name or _served_name(model),
            model=model,
            runtime=self.runtime,
            runtime_config=self._config() if self.runtime == "jax" else {},
            serving=Serving(max_concurrent=self.max_concurrent),
        )

    def registry(self) -> RunnerRegistry:
        """Return a registry that knows the runtime, also one given as ``FILE.py:CLASS`` or ``MODULE:CLASS``.

        Raises:
            ModelLoadError: the file, module or class is not there, or is not a runner.
        """
        registry = RunnerRegistry()
        if ":" in self.runtime:
            registry.register(self.runtime, _load_runner(self.runtime))
        return registry

    def _config(self) -> dict[str, Any]:
        config = {
            "dtype": self.dtype,
            "load_format": self.load_format,
            "tensor_parallel": self.tensor_parallel,
            "max_model_len": self.max_model_len,
            "kv_tokens": self.kv_tokens,
            "tool_style": self.tool_style,
            "thought_style": self.thought_style,
            "spare": self.spare,
            "pooling": self.pooling,
            "warm_embeddings": self.warm_embeddings,
        }
        return {key: value for key, value in config.items() if value is not None}


def model_options(command: F) -> F:
    """Add the options that say what is served."""
    options = [
        click.argument("model", required=False),
        click.option("--name", help="What clients put into `model`.  [default: the model's own name]"),
        click.option(
            "--runtime",
            default="jax",
            show_default=True,
            help="Who runs it: an installed runner's name, or FILE.py:CLASS, or MODULE:CLASS.",
        ),
        click.option("--dtype", type=click.Choice(DTYPES), default="auto", show_default=True),
        click.option(
            "--load-format",
            type=click.Choice(LOAD_FORMATS),
            default="auto",
            show_default=True,
            help="`dummy` makes random weights of the model's shape: its config.json is enough.",
        ),
        click.option(
            "--tensor-parallel",
            type=click.IntRange(1),
            default=1,
            show_default=True,
            help="Devices of this host that the model is dealt to.",
        ),
        click.option("--max-model-len", type=click.IntRange(2), help="Prompt plus answer, in tokens."),
        click.option("--max-concurrent", type=click.IntRange(1, 1024), default=32, show_default=True),
        click.option("--kv-tokens", type=click.IntRange(2), help="Size of the KV pool, in tokens."),
        click.option(
            "--tool-style",
            type=click.Choice(TOOL_STYLES),
            default="auto",
            show_default=True,
            help="How the model calls functions; auto: as its chat template says.",
        ),
        click.option(
            "--thought-style",
            type=click.Choice(THOUGHT_STYLES),
            default="auto",
            show_default=True,
            help="How it marks its reasoning; auto: as its chat template says.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _served_name(model: str) -> str:
    entry = default_catalog().find(model)
    if entry is not None:
        return entry.name
    path = Path(model)
    if path.is_dir():
        return path.resolve().name or model
    return path.resolve().parent.name if path.name == "config.json" else path.stem or model


def _load_runner(reference: str) -> type[ModelRunner]:
    where, _, name = reference.rpartition(":")
    try:
        module = _from_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
        found: Any = getattr(module, name)
    except (ImportError, AttributeError, OSError) as error:
        raise ModelLoadError(f"the runner {reference} cannot be loaded: {error}") from error
    if not (isinstance(found, type) and issubclass(found, ModelRunner)):
        raise ModelLoadError(f"{reference} is not a ModelRunner")
    return found


def _from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ImportError(f"there is no file {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
