"""From settings to a model that can run: file, dtype, weights, cache size."""

import os
from collections.abc import Callable

from attrs import frozen

from atomr_trio.core import ModelLoadError
from atomr_trio.formats import GgufFile, HfFolder

from .config import DType, ModelConfig
from .device import Device, first_device, wait_for
from .memory import available_bytes, choose_pages, page_bytes
from .settings import EngineSettings
from .weights import Params, load_gguf_params, load_hf_params, random_params

__all__ = ["LoadedModel", "load_model", "resolve_dtype"]

OnProgress = Callable[[int, int], None]


@frozen
class LoadedModel:
    """A model in memory. ``num_pages`` does not count the garbage page; ``max_model_len`` is in tokens."""

    device: Device
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
    device = first_device()
    dtype = resolve_dtype(settings.dtype, device.platform)
    try:
        config, params = _read(settings, dtype, on_progress)
        wait_for(params)
    except (OSError, MemoryError) as error:
        raise ModelLoadError(_reason(error)) from error
    per_page = page_bytes(config, settings.page_size, dtype)
    # Asked again: the weights are loaded now.
    free = available_bytes(first_device())
    pages, longest = choose_pages(settings, config.context_length, per_page, free, accelerator=not device.is_cpu)
    return LoadedModel(device, config, params, dtype, pages, longest)


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
    config = ModelConfig.read(settings.model) if settings.model else ModelConfig.tiny()
    if settings.load_format == "dummy":
        return config, random_params(config, dtype, settings.seed)
    folder = HfFolder.at(settings.model)
    if folder is not None:
        with folder.open_weights() as weights:
            return config, load_hf_params(weights, config, dtype, on_progress)
    with GgufFile.open(settings.model) as file:
        return config, load_gguf_params(file, config, dtype, on_progress)


def _reason(error: OSError | MemoryError) -> str:
    # Not str(error): it has the path.
    if isinstance(error, OSError):
        return os.strerror(error.errno).lower() if error.errno else "the file cannot be read"
    return "there is not enough memory for its weights"
