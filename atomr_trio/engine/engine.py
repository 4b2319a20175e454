"""The engine: requests in, one step at a time, tokens out. Blocking, needs no loop and no second process."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from time import perf_counter

from attrs import define, evolve, field

from atomr_trio.core import BadRequest, OutOfMemory

from .assembly import Assembly, assemble
from .device_errors import DeviceFault, classify_device_error
from .edits import needs_edits
from .frames import Ready, SequenceOutput, SequenceRequest
from .loading import load_model
from .masks import TokenGuide
from .pooling import Poolings
from .program_cache import use_compilation_cache
from .prompt_scores import PromptScores
from .sequence import Sequence, finish_reason
from .settings import EngineSettings
from .stepping import Stepper, StepResult
from .validation import check_request

__all__ = ["Engine", "StepResult"]

OnProgress = Callable[[str, int, int], None]


def _silent(_stage: str, _done: int, _total: int) -> None:
    pass


@contextmanager
def _out_of_memory(message: str) -> Generator[None]:
    try:
        yield
    except Exception as error:
        if classify_device_error(error) is DeviceFault.OUT_OF_MEMORY:
            raise OutOfMemory(message) from error
        raise


@define
class Engine:
    """Generates for many sequences at once.

    ``load`` it, ``add`` requests at any time, and call ``step`` until it is ``idle``; ``close`` it at the end.
    Not safe to use from several threads.

    Args:
        settings: what to load, and the limits.
        on_dispatch: called before each step is sent to the device; what it raises counts as raised by the device. For
            tests that want to see it fail.
        pages_fd: a file whose pages this engine begins with, and in which it keeps its own, within ``kept_mib``.
    """

    settings: EngineSettings
    on_dispatch: Callable[[], None] | None = None
    pages_fd: int | None = None
    _loaded: Assembly | None = field(init=False, default=None)
    _stepper: Stepper | None = field(init=False, default=None)
    _scores: PromptScores = field(init=False, factory=PromptScores)
    _poolings: Poolings = field(init=False, factory=Poolings)
    _ended: list[SequenceOutput] = field(init=False, factory=list[SequenceOutput])

    def load(self, on_progress: OnProgress = _silent, *, standby: bool = False) -> Ready:
        """Load the model and compile what the first requests need.

        Args:
            on_progress: called with the stage (``weights``, ``compile``), units done and units in all.
            standby: `activate` will be called later: until then there is no cache, and nothing is compiled in the
                background. How much memory is free now does not count.

        Raises:
            ModelLoadError: the model cannot be served.
            OutOfMemory: its cache or its programs do not fit into the device's memory.
        """
        started = perf_counter()
        if self.settings.cache_dir is not None:
            use_compilation_cache(self.settings.cache_dir)
        model = load_model(self.settings, partial(on_progress, "weights"), alone=not standby)
        loaded = perf_counter()
        with _out_of_memory("the model does not fit into the device's memory"):
            self._loaded = assemble(self.settings, model, partial(on_progress, "compile"), self.pages_fd)
            self._stepper = Stepper(
                self._loaded, self.settings.steps_ahead, self._scores, self._poolings, self._dispatching
            )
        if not standby:
            self.activate()
        return self._describe(loaded - started, perf_counter() - loaded)

    def stand_by(self, goes_on: Callable[[], bool]) -> None:
        """Do for the first requests what can be done before there are any, between `load` and `activate`.

        Args:
            goes_on: asked now and then; false: there is something better to do.
        """
        self._state.stand_by(goes_on)

    def activate(self) -> None:
        """Do what `load` left out.

        Raises:
            OutOfMemory: there is no room for the cache.
        """
        with _out_of_memory("the cache does not fit into the device's memory"):
            self._state.activate()

    def use_quiet(self) -> bool:
        """Do something that saves later steps time, for up to a second; call it while the engine is ``idle``.

        Returns:
            False if there is nothing left to be done.
        """
        return self.idle and self._state.use_quiet()

    def compile_everything(self, on_progress: OnProgress = _silent) -> None:
        """Compile all shapes now, so that no later step waits for one; but for prompt scores and embeddings."""
        self._state.executor.warm_up(partial(on_progress, "compile"))

    def add(self, request: SequenceRequest, guide: TokenGuide | None = None) -> None:
        """Queue a request; its tokens come out of later steps.

        Args:
            request: what is wanted.
            guide: decides, token by token, what the answer may say; a request with a grammar has one.

        Raises:
            BadRequest: it can never be run, or its number is in use.
            ContextLengthExceeded: its prompt is too long.
            Backpressure: too many are waiting.
        """
        engine = self._state
        if request.grammar is not None and guide is None:
            raise BadRequest("a grammar needs a guide", param="grammar")
        if request.id in engine.scheduler:
            raise BadRequest(f"request {request.id} is already open")
        vocab_size, longest = engine.model.served.sizes.vocab_size, engine.model.max_model_len
        check_request(request, vocab_size=vocab_size, max_model_len=longest)
        over = finish_reason(Sequence.of(request, 0), longest)
        if over is not None:
            # The process before this one died between the last token and the word that it was the last.
            self._ended.append(SequenceOutput(request.id, [], finish_reason=over))
            return
        sequence = engine.scheduler.add(request)
        sequence.reads_answer = guide is not None or needs_edits(request)
        self._scores.begin(sequence)
        if guide is not None:
            engine.executor.drawing.guide(sequence, guide)
        engine.programs.set_busy(True)

    def drawing(self, request_id: int) -> int:
        """Return how many tokens the steps on the device draw for a request; nobody gets them if it is aborted now."""
        return self._state.scheduler.drawing(request_id)

    def abort(self, request_id: int) -> bool:
        """Forget a request; its pages are free at once. False: it is not open (any more)."""
        self._scores.forget(request_id)
        self._poolings.forget(request_id)
        before = len(self._ended)
        self._ended = [output for output in self._ended if output.id != request_id]
        found = self._state.scheduler.abort(request_id) is not None or len(self._ended) < before
        self._state.programs.set_busy(not self._state.scheduler.idle)
        return found

    @property
    def idle(self) -> bool:
        """A step would do nothing."""
        if self._loaded is None or self._stepper is None:
            return not self._ended
        return not self._ended and not self._stepper.busy and self._loaded.scheduler.idle

    @property
    def steps(self) -> int:
        """Steps that are over, well or badly."""
        return self._stepper.steps if self._stepper is not None else 0

    @property
    def running(self) -> int:
        """Sequences that take part in steps."""
        return len(self._loaded.scheduler.running) if self._loaded else 0

    @property
    def waiting(self) -> int:
        """Sequences that wait for a place."""
        return len(self._loaded.scheduler.waiting) if self._loaded else 0

    @property
    def free_pages(self) -> int:
        """Pages of the cache that nobody has."""
        return self._state.scheduler.pool.free

    @property
    def preemptions(self) -> int:
        """How often a sequence had to give its pages to others and be computed again."""
        return self._state.scheduler.preemptions

    @property
    def compiling(self) -> bool:
        """A step waits for a program. May be asked from another thread."""
        return self._loaded is not None and self._loaded.programs.waiting

    def step(self, *, wait_for_programs: bool = True) -> StepResult:
        """Return what the oldest step on the device brought, and see that the next ones are there before it is done.

        Blocks for as long as the device works on it.

        Args:
            wait_for_programs: block while a program of a new shape is compiled (seconds), too. Without it the step
                leaves out what lacks its program, and says so: aborts and other sequences need not wait.

        Raises:
            CudaContextPoisoned: the device context is lost; only a new process helps.
            OutOfMemory: the device has too little memory even for one sequence.
        """
        engine = self._state
        try:
            result = self._pipeline.step(wait_for_programs=wait_for_programs)
        finally:
            engine.programs.set_busy(not engine.scheduler.idle)
        if engine.kept is not None:
            engine.kept.keep_up()
        ended, self._ended = self._ended, []
        return evolve(result, outputs=ended + result.outputs)

    def close(self) -> None:
        """Stop compiling in the background and let go of the model."""
        if self._loaded is not None:
            if self._loaded.kept is not None:
                self._loaded.kept.close()
            self._loaded.programs.close()
            self._loaded = self._stepper = None

    def _dispatching(self) -> None:
        # Looked up each time: a process that stands by learns late what it is to suffer.
        if self.on_dispatch is not None:
            self.on_dispatch()

    @property
    def _state(self) -> Assembly:
        if self._loaded is None:
            raise RuntimeError("the engine is not loaded")
        return self._loaded

    @property
    def _pipeline(self) -> Stepper:
        if self._stepper is None:
            raise RuntimeError("the engine is not loaded")
        return self._stepper

    def _describe(self, load_s: float, warmup_s: float) -> Ready:
        model = self._state.model
        return Ready(
            max_model_len=model.max_model_len,
            max_num_seqs=self.settings.max_num_seqs,
            vocab_size=model.served.sizes.vocab_size,
            dtype=model.dtype,
            backend=model.device.platform,
            device=model.device.name,
            num_pages=model.num_pages,
            page_size=self.settings.page_size,
            load_s=load_s,
            warmup_s=warmup_s,
        )
