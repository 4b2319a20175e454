"""From settings to a model that can run: file, dtype, weights, cache size."""

import os
from collections.abc import Callable
from typing import Any

from attrs import frozen

from atomr_trio.core import ModelLoadError
from atomr_trio.formats import GgufFile, HfFolder

from .config import DType, ModelConfig
from .device import Device, first_device, wait_for
from .linear_tuning import tune
from .memory import available_bytes, choose_pages, page_bytes
from .model import Decoder
from .own_model import OwnDecoder, load_own_model
from .served_model import ServedModel
from .settings import EngineSettings
from .weights import Params, load_gguf_params, load_hf_params, random_params

__all__ = ["LoadedModel", "load_model", "resolve_dtype"]

OnProgress = Callable[[int, int], None]


@frozen
class LoadedModel:
    """A model in memory. ``num_pages`` does not count the garbage page; ``max_model_len`` is in tokens."""

    device: Device
    served: ServedModel
    params: Any
    dtype: DType
    num_pages: int
    max_model_len: int


def load_model(settings: EngineSettings, on_progress: OnProgress) -> LoadedModel:
    """Load the model and size its cache. ``on_progress`` is called with (units done, units in all).

    Raises:
        ModelLoadError: the file is missing, damaged or of an unsupported kind, or memory does not suffice.
    """
    device = first_device()
    dtype = resolve_dtype(settings.dtype, device.platform, own=settings.load_format == "python")
    try:
        served, params = _read(settings, dtype, on_progress)
        wait_for(params)
    except (OSError, MemoryError) as error:
        raise ModelLoadError(_reason(error)) from error
    # On a CPU the rows that decode have a view of their pages, which takes as much again.
    per_page = page_bytes(served.sizes, settings.page_size, dtype) * (1 + device.is_cpu)
    # Asked again: the weights are loaded now.
    free = available_bytes(first_device())
    pages, longest = choose_pages(settings, served.sizes.context_length, per_page, free, accelerator=not device.is_cpu)
    return LoadedModel(device, served, params, dtype, pages, longest)


def resolve_dtype(asked: str, platform: str, *, own: bool = False) -> DType:
    """Return how weights are held: what was asked, or by platform for ``auto``.

    Args:
        asked: a dtype, or ``auto``.
        platform: of the device.
        own: the weights are a user's own arrays, which are never rounded.

    On a CPU int8 is the fastest for every batch size, and takes a quarter of float32's memory, for answers that agree
    with float32's nearly always (`benchmarks/agreement.py`). Everything else has bfloat16 units.

    Raises:
        ModelLoadError: there is no such dtype.
    """
    if asked == "auto":
        on_cpu = "float32" if own else "int8"
        return on_cpu if platform == "cpu" else "bfloat16"
    if asked in ("float32", "bfloat16", "int8"):
        return asked
    raise ModelLoadError(f"unknown dtype `{asked}`")


def _read(settings: EngineSettings, dtype: DType, on_progress: OnProgress) -> tuple[ServedModel, Any]:
    if settings.load_format == "python":
        own, params = load_own_model(settings.model)
        return OwnDecoder(own), params
    config, params = _read_decoder(settings, dtype, on_progress)
    return Decoder(config), tune(wait_for(params), settings.cache_dir)


def _read_decoder(settings: EngineSettings, dtype: DType, on_progress: OnProgress) -> tuple[ModelConfig, Params]:
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
