"""Puts the parts of an engine together for a model that is loaded."""

from collections.abc import Callable
from functools import partial

from attrs import frozen

from .blocks import BlockPool, pages_for
from .buckets import Buckets
from .compile_cache import CompileCache
from .device import Device, shapes_of
from .drawing import Drawing
from .execution import StepExecutor
from .loading import LoadedModel
from .model import init_kv
from .programs import ProgramBuilder
from .scheduler import Scheduler, SchedulerLimits
from .settings import EngineSettings
from .validation import MAX_BIASED, MAX_END_TOKENS

__all__ = ["Assembly", "assemble"]


@frozen
class Assembly:
    """The parts that exist once a model is loaded."""

    model: LoadedModel
    scheduler: Scheduler
    executor: StepExecutor
    programs: CompileCache


def assemble(settings: EngineSettings, model: LoadedModel, on_progress: Callable[[int, int], None]) -> Assembly:
    """Make the parts and compile what the first requests need; the rest follows in the background.

    Args:
        on_progress: called with (programs compiled, programs in all).
    """
    chunk, chunk_busy = chunks = _chunks(settings, model.device)
    limits = SchedulerLimits(
        max_num_seqs=settings.max_num_seqs,
        max_model_len=model.max_model_len,
        chunk=chunk,
        chunk_busy=chunk_busy,
        max_waiting=settings.max_waiting,
        watermark=model.num_pages // 100,
    )
    buckets = Buckets.of(
        max_num_seqs=settings.max_num_seqs,
        max_chunk=max(chunks),
        max_pages=pages_for(model.max_model_len, settings.page_size),
        max_entries=min(model.config.vocab_size, model.max_model_len + MAX_BIASED + MAX_END_TOKENS),
    )
    new_kv = partial(init_kv, model.config, model.num_pages + 1, settings.page_size, model.dtype)
    programs = CompileCache(ProgramBuilder(model.config, model.params, shapes_of(new_kv)))
    programs.warm_up(buckets.at_start(chunks), on_progress)
    drawing = Drawing(model.config.vocab_size, buckets)
    executor = StepExecutor(model.params, programs, buckets, settings.page_size, new_kv, drawing)
    programs.prepare_when_quiet(buckets.ladder(chunks))
    return Assembly(model, Scheduler(limits, BlockPool(model.num_pages, settings.page_size)), executor, programs)


def _chunks(settings: EngineSettings, device: Device) -> tuple[int, int]:
    # A CPU computes 64 rows as efficiently as 256, and sooner; a GPU is not even awake at 64.
    idle, busy = (64, 64) if device.is_cpu else (512, 256)
    return settings.prefill_chunk or idle, settings.prefill_chunk_busy or busy
