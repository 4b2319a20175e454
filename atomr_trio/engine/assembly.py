"""Puts the parts of an engine together for a model that is loaded."""

import logging
from collections.abc import Callable
from functools import partial
from typing import cast

from attrs import frozen
from jax.sharding import NamedSharding

from .attention import View, attend_blocked, choose_backend, view_shapes
from .blocks import BlockPool, pages_for
from .buckets import Buckets, ProgramKey
from .compile_cache import CompileCache
from .device import Device, shapes_of, zeros
from .device_errors import fault_name
from .device_state import DeviceState
from .drawing import Drawing
from .execution import StepExecutor
from .kept_pages import KEEP, RESTORE, KeptPages, name_of
from .kv_cache import CacheShape, init_kv
from .loading import LoadedModel
from .memory import page_bytes
from .pace import Costs
from .page_store import PageStore, read_key
from .prefix_cache import PageHasher
from .programs import ProgramBuilder
from .scheduler import Scheduler, SchedulerLimits
from .settings import EngineSettings
from .validation import MAX_BIASED, MAX_END_TOKENS

__all__ = ["Assembly", "assemble"]

logger: logging.Logger = logging.getLogger(__name__)


# Fitted to what `benchmarks/stretch.py` shows with SmolLM2 on two cores, where a row takes about 1.7 ms. A larger model
# takes longer for all of it.
_CPU_COSTS = Costs(program=12, positions=1500, share=0.8)


# A GPU decodes beside a prompt at hardly any cost; on a CPU each decoding step is a prompt less that is computed.
_RESUME_FIRST = 512

_SOON = 11
"""Later programs that a process compiles while it stands by: full batches, and contexts twice as long as the first."""


@frozen
class Assembly:
    """The parts that exist once a model is loaded.

    Args:
        model: what was loaded.
        scheduler: of its sequences.
        executor: of its steps.
        programs: that are compiled.
        first: shapes that are compiled at once.
        later: shapes that are compiled in quiet moments.
        kept: pages that outlive the process, if any do.
    """

    model: LoadedModel
    scheduler: Scheduler
    executor: StepExecutor
    programs: CompileCache
    first: list[ProgramKey]
    later: list[ProgramKey]
    kept: KeptPages | None = None

    def activate(self) -> None:
        """Allocate the cache, and begin to compile what the first requests do not need."""
        self.executor.state.allocate()
        if self.kept is not None:
            self.kept.restore()
        self.programs.prepare_when_quiet(self.later)

    def stand_by(self, goes_on: Callable[[], bool]) -> None:
        """Compile what streams in their first minute need, and run it once; the cache that this takes is let go of."""
        self.executor.state.allocate()
        for key in (*self.first, *self._copies, *self.later[:_SOON]):
            if goes_on():
                self.programs.get(key)
                self._run_dry([key])
        self.executor.state.release()

    def use_quiet(self) -> bool:
        """Run one of the programs that are compiled, dry; false if all have been run."""
        waiting = [key for key in (*self._copies, *self.first, *self.later) if not self.executor.has_run(key)]
        self._run_dry([key for key in waiting if key in self.programs.compiled][:1])
        return bool(waiting)

    @property
    def _copies(self) -> list[ProgramKey]:
        return [] if self.kept is None else [KEEP, RESTORE]

    def _run_dry(self, keys: list[ProgramKey]) -> None:
        try:
            self.executor.run_dry(keys)
        except Exception as error:
            # A step of this shape meets it again, and knows what to do. What the pages held may be gone with it.
            logger.warning("a program could not be run ahead of time (%s)", fault_name(error))
            if self.executor.state.lost:
                self.scheduler.restart_all()
                self.executor.state.rebuild()


def assemble(
    settings: EngineSettings,
    model: LoadedModel,
    on_progress: Callable[[int, int], None],
    pages_fd: int | None = None,
) -> Assembly:
    """Make the parts and compile what the first requests need; `Assembly.activate` does the rest.

    Args:
        settings: how.
        model: what was loaded.
        on_progress: called with (programs compiled, programs in all).
        pages_fd: a file for pages that are to outlive the process.
    """
    attend = choose_backend(settings.attention, model.device.platform, model.device.capability)
    chunk, chunk_busy, short, burst = _chunks(settings, model.device)
    chunks = chunk, chunk_busy, short or chunk
    steps = _decode_steps(settings, model.device)
    limits = SchedulerLimits(
        max_num_seqs=settings.max_num_seqs,
        max_model_len=model.max_model_len,
        chunk=chunk,
        chunk_busy=chunk_busy,
        pace=_CPU_COSTS if model.device.is_cpu else None,
        resume_first=_RESUME_FIRST if model.device.is_cpu else 0,
        short=short,
        burst=burst,
        decode_steps=steps,
        max_waiting=settings.max_waiting,
        watermark=model.num_pages // 100,
    )
    buckets = Buckets.of(
        max_num_seqs=settings.max_num_seqs,
        max_chunk=max(chunks),
        max_pages=pages_for(model.max_model_len, settings.page_size),
        max_entries=min(model.served.sizes.vocab_size, model.max_model_len + MAX_BIASED + MAX_END_TOKENS),
        # A view holds what the pages hold, and may be as large as they are.
        view_pages=model.num_pages if model.device.is_cpu else 0,
        steps=steps,
        one_width=attend is attend_blocked,
    )
    sizes, page_size, heads = model.served.sizes, settings.page_size, model.layout.heads
    new_kv = partial(init_kv, sizes, model.num_pages + 1, page_size, model.dtype, heads)
    # One for each row that decodes, and one for each prompt that is computed beside them.
    places = 2 * settings.max_num_seqs
    programs = CompileCache(
        ProgramBuilder(model.served, model.params, shapes_of(new_kv, heads), places, attend, model.layout)
    )
    first, later = buckets.at_start(chunks), buckets.ladder(chunks)
    first += buckets.pooled(first, settings.warm_pooling)
    later += buckets.pooled(later, settings.warm_pooling)
    programs.warm_up(first, on_progress)
    state = DeviceState(model.params, new_kv, partial(_new_view, sizes, page_size, heads), places)
    drawing = Drawing(model.served.sizes.vocab_size, buckets)
    executor = StepExecutor(state, programs, buckets, settings.page_size, drawing)
    pool = BlockPool(model.num_pages, settings.page_size)
    size = page_bytes(sizes, page_size, model.dtype)
    slots = min(model.num_pages, settings.kept_mib * 2**20 // size)
    # Elsewhere than on a CPU a copy goes over a bus, and what that costs has not been measured.
    if pages_fd is None or not slots or not model.device.is_cpu or model.device.count > 1:
        return Assembly(model, Scheduler(limits, pool), executor, programs, first, later)
    name = name_of(model.params, f"{page_size} {size} {model.dtype}")
    kept = KeptPages(pool, state, programs, partial(PageStore.open, pages_fd, name, slots, size))
    scheduler = Scheduler(limits, pool, PageHasher(read_key(pages_fd)))
    return Assembly(model, scheduler, executor, programs, first, later, kept)


def _new_view(config: CacheShape, page_size: int, sharding: NamedSharding | None, key: ProgramKey) -> View:
    # Views come and go while streams wait.
    return cast("View", zeros(view_shapes(config, key.rows, key.pages * page_size, sharding)))


def _decode_steps(settings: EngineSettings, device: Device) -> int:
    # On a CPU a step takes tens of milliseconds: nobody waits for the host, and streams would only flow in jerks.
    auto = 1 if device.is_cpu else 4
    return auto if settings.decode_steps == "auto" else settings.decode_steps


def _chunks(settings: EngineSettings, device: Device) -> tuple[int, int, int, int]:
    # A CPU computes 128 rows as efficiently as 256, and sooner; a GPU is not even awake at 64. Beside decoding rows, 16
    # take a CPU longer than a few of those rows, but less would compute a prompt for ever: see `benchmarks/stretch.py`.
    # What arrives together is another matter: a batch that fills twice as fast is worth one gap twice as long.
    idle, busy, short, burst = (128, 16, 64, 128) if device.is_cpu else (512, 256, 0, 512)
    chunk = settings.prefill_chunk or idle
    if settings.prefill_chunk_busy is not None:
        return chunk, settings.prefill_chunk_busy, 0, settings.prefill_chunk_busy
    return chunk, min(busy, chunk), min(short, chunk), burst if settings.prefill_chunk is None else chunk
