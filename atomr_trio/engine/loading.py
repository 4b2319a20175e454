"""From settings to a model that can run: file, dtype, weights, cache size."""

import os
from collections.abc import Callable

import jax
from attrs import frozen

from atomr_trio.core import ModelLoadError
from atomr_trio.formats import GgufFile

from .config import DType, ModelConfig
from .memory import available_bytes, choose_pages, page_bytes
from .settings import EngineSettings
from .weights import Params, load_gguf_params, random_params

__all__ = ["LoadedModel", "load_model", "resolve_dtype", "use_compilation_cache"]

OnProgress = Callable[[int, int], None]


@frozen
class LoadedModel:
    """A model in memory. ``num_pages`` does not count the garbage page; ``max_model_len`` is in tokens."""

    config: ModelConfig
    params: Params
    dtype: DType
    num_pages: int
    max_model_len: int


def load_model(settings: EngineSettings, on_progress: OnProgress) -> LoadedModel:
    """Load the model and size its cache. ``on_progress`` is called with (units done, units in all).

    Raises:
        ModelLoadError: the file is missing, damaged or of an unsupported kind, or memory does not suffice.
    """
    device = jax.devices()[0]
    dtype = resolve_dtype(settings.dtype, device.platform)
    try:
        config, params = _read(settings, dtype, on_progress)
        jax.block_until_ready(params)
    except (OSError, MemoryError) as error:
        raise ModelLoadError(_reason(error)) from error
    per_page = page_bytes(config, settings.page_size, dtype)
    free = available_bytes(device)
    accelerator = device.platform != "cpu"
    pages, longest = choose_pages(settings, config.context_length, per_page, free, accelerator=accelerator)
    return LoadedModel(config, params, dtype, pages, longest)


def resolve_dtype(asked: str, platform: str) -> DType:
    """Return how weights are held: what was asked, or by platform for ``auto``.

    On a CPU, float32 is what XLA multiplies fast for every batch size; everything else has bfloat16 units.
    """
    if asked == "auto":
        return "float32" if platform == "cpu" else "bfloat16"
    if asked in ("float32", "bfloat16", "int8"):
        return asked
    raise ModelLoadError(f"unknown dtype `{asked}`")


def _read(settings: EngineSettings, dtype: DType, on_progress: OnProgress) -> tuple[ModelConfig, Params]:
    if settings.load_format == "dummy":
        config = ModelConfig.tiny()
        return config, random_params(config, dtype, settings.seed)
    with GgufFile.open(settings.model) as file:
        config = ModelConfig.from_gguf(file.fields)
        return config, load_gguf_params(file, config, dtype, on_progress)


def _reason(error: OSError | MemoryError) -> str:
    # Not str(error): it has the path.
    if isinstance(error, OSError):
        return os.strerror(error.errno).lower() if error.errno else "the file cannot be read"
    return "there is not enough memory for its weights"


def use_compilation_cache(folder: str) -> None:
    """Keep compiled programs in a folder, across processes. Affects the whole process."""
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
