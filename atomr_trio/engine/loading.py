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
from .sharding import Layout
from .shares import check_shares
from .weights import Params, load_gguf_params, load_hf_params, random_params

__all__ = ["LoadedModel", "load_model", "resolve_dtype"]

OnProgress = Callable[[int, int], None]


@frozen
class LoadedModel:
    """A model in memory. ``num_pages`` does not count the garbage page; ``max_model_len`` is in tokens."""

    device: Device
    layout: Layout
    served: ServedModel
    params: Any
    dtype: DType
    num_pages: int
    max_model_len: int


def load_model(settings: EngineSettings, on_progress: OnProgress, *, alone: bool = True) -> LoadedModel:
    """Load the model and size its cache.

    Args:
        settings: what to load.
        on_progress: called with (units done, units in all).
        alone: what is free now is all that there will be. Otherwise another process holds memory that will be free
            when it is wanted, and the settings count.

    Raises:
        ModelLoadError: the file is missing, damaged or of an unsupported kind, or memory does not suffice.
    """
    layout = _layout(settings)
    device = first_device(layout.count)
    dtype = resolve_dtype(settings.dtype, device.platform, own=settings.load_format == "python")
    try:
        served, params = _read(settings, dtype, layout, on_progress)
        wait_for(params)
    except (OSError, MemoryError) as error:
        raise ModelLoadError(_reason(error)) from error
    # On a CPU the rows that decode have a view of their pages, which takes as much again.
    per_page = device.share(page_bytes(served.sizes, settings.page_size, dtype)) * (1 + device.is_cpu)
    # Asked again: the weights are loaded now.
    free = available_bytes(first_device(layout.count)) if alone else None
    pages, longest = choose_pages(settings, served.sizes.context_length, per_page, free, accelerator=not device.is_cpu)
    return LoadedModel(device, layout, served, params, dtype, pages, longest)


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


def _layout(settings: EngineSettings) -> Layout:
    if settings.load_format == "python" and settings.tensor_parallel > 1:
        raise ModelLoadError("a model of your own lies on one device: leave tensor_parallel at 1")
    return Layout.over(settings.tensor_parallel)


def _read(settings: EngineSettings, dtype: DType, layout: Layout, on_progress: OnProgress) -> tuple[ServedModel, Any]:
    if settings.load_format == "python":
        own, params = load_own_model(settings.model)
        return OwnDecoder(own), params
    config = ModelConfig.read(settings.model) if settings.model else ModelConfig.tiny()
    check_shares(config, layout.count)
    params = wait_for(_read_params(config, settings, dtype, layout, on_progress))
    # What is measured and remembered is the product of a whole matrix.
    return Decoder(config, layout), tune(params, settings.cache_dir) if layout.count == 1 else params


def _read_params(
    config: ModelConfig, settings: EngineSettings, dtype: DType, layout: Layout, on_progress: OnProgress
) -> Params:
    if settings.load_format == "dummy":
        return random_params(config, dtype, settings.seed, layout)
    folder = HfFolder.at(settings.model)
    if folder is not None:
        with folder.open_weights() as weights:
            return load_hf_params(weights, config, dtype, on_progress, layout)
    with GgufFile.open(settings.model) as file:
        return load_gguf_params(file, config, dtype, on_progress, layout)


def _reason(error: OSError | MemoryError) -> str:
    # Not str(error): it has the path.
    if isinstance(error, OSError):
        return os.strerror(error.errno).lower() if error.errno else "the file cannot be read"
    return "there is not enough memory for its weights"
