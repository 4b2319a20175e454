"""The engine: requests in, one step at a time, tokens out. Blocking, needs no loop and no second process."""

import logging
from collections.abc import Callable
from functools import partial
from time import perf_counter

from attrs import define, field, frozen

from atomr_trio.core import BadRequest, CudaContextPoisoned, InferenceError, Internal, OutOfMemory

from .assembly import Assembly, assemble
from .device_errors import DeviceFault, classify_device_error, fault_name
from .execution import Drawn
from .frames import Ready, SequenceOutput, SequenceRequest
from .loading import load_model
from .masks import TokenGuide
from .program_cache import use_compilation_cache
from .prompt_scores import PromptScores
from .scheduler import Accepted, SentStep, StepPlan
from .sequence import Sequence, finish_reason
from .settings import EngineSettings
from .validation import check_request

__all__ = ["Engine", "StepResult"]

logger: logging.Logger = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int], None]


@frozen(kw_only=True)
class StepResult:
    """What a step did, and how the engine stands after it.

    Args:
        outputs: what it added to each sequence.
        failed: requests that ended alone, each with its error.
        tokens: rows computed, prompt tokens included.
        lacking: nothing was computed, for lack of programs that are being compiled.
    """

    outputs: list[SequenceOutput] = field(factory=list[SequenceOutput])
    failed: list[tuple[int, InferenceError]] = field(factory=list[tuple[int, InferenceError]])
    tokens: int = 0
    lacking: bool = False


def _silent(_stage: str, _done: int, _total: int) -> None:
    pass


@define
class Engine:
    """Generates for many sequences at once.

    ``load`` it, ``add`` requests at any time, and call ``step`` until it is ``idle``; ``close`` it at the end.
    Not safe to use from several threads.
    """

    settings: EngineSettings
    steps: int = field(init=False, default=0)
    _loaded: Assembly | None = field(init=False, default=None)
    _scores: PromptScores = field(init=False, factory=PromptScores)
    _ended: list[SequenceOutput] = field(init=False, factory=list[SequenceOutput])

    def load(self, on_progress: OnProgress = _silent) -> Ready:
        """Load the model and compile what the first requests need.

        Args:
            on_progress: called with the stage (``weights``, ``compile``), units done and units in all.

        Raises:
            ModelLoadError: the model cannot be served.
            OutOfMemory: its cache or its programs do not fit into the device's memory.
        """
        started = perf_counter()
        if self.settings.cache_dir is not None:
            use_compilation_cache(self.settings.cache_dir)
        model = load_model(self.settings, partial(on_progress, "weights"))
        loaded = perf_counter()
        try:
            self._loaded = assemble(self.settings, model, partial(on_progress, "compile"))
        except Exception as error:
            if classify_device_error(error) is DeviceFault.OUT_OF_MEMORY:
                raise OutOfMemory("the model does not fit into the device's memory") from error
            raise
        return self._describe(loaded - started, perf_counter() - loaded)

    def compile_everything(self, on_progress: OnProgress = _silent) -> None:
        """Compile all shapes now, so that no later step waits for one; prompt log probabilities excepted."""
        self._state.executor.warm_up(partial(on_progress, "compile"))

    def add(self, request: SequenceRequest, guide: TokenGuide | None = None) -> None:
        """Queue a request; its tokens come out of later steps.

        Args:
            request: what is wanted.
            guide: decides, token by token, what the answer may say.

        Raises:
            BadRequest: it can never be run, or its number is in use.
            ContextLengthExceeded: its prompt is too long.
            Backpressure: too many are waiting.
        """
        engine = self._state
        if request.id in engine.scheduler:
            raise BadRequest(f"request {request.id} is already open")
        vocab_size, longest = engine.model.config.vocab_size, engine.model.max_model_len
        check_request(request, vocab_size=vocab_size, max_model_len=longest)
        over = finish_reason(Sequence.of(request, 0), longest)
        if over is not None:
            # The process before this one died between the last token and the word that it was the last.
            self._ended.append(SequenceOutput(request.id, [], finish_reason=over))
            return
        sequence = engine.scheduler.add(request)
        self._scores.begin(sequence)
        if guide is not None:
            engine.executor.drawing.guide(sequence, guide)
        engine.programs.set_busy(True)

    def abort(self, request_id: int) -> bool:
        """Forget a request; its pages are free at once. False: it is not open (any more)."""
        self._scores.forget(request_id)
        before = len(self._ended)
        self._ended = [output for output in self._ended if output.id != request_id]
        found = self._state.scheduler.abort(request_id) is not None or len(self._ended) < before
        self._state.programs.set_busy(not self._state.scheduler.idle)
        return found

    @property
    def idle(self) -> bool:
        """A step would do nothing."""
        return not self._ended and (self._loaded is None or self._loaded.scheduler.idle)

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
        """Compute one step and return what it brought. Blocks for as long as the device works.

        Args:
            wait_for_programs: block while a program of a new shape is compiled (seconds), too. Without it the step
                leaves out what lacks its program, and says so: aborts and other sequences need not wait.

        Raises:
            CudaContextPoisoned: the device context is lost; only a new process helps.
            OutOfMemory: the device has too little memory even for one sequence.
        """
        try:
            return self._step(self._state, wait_for_programs)
        finally:
            self._state.programs.set_busy(not self._state.scheduler.idle)

    def close(self) -> None:
        """Stop compiling in the background and let go of the model."""
        if self._loaded is not None:
            self._loaded.programs.close()
            self._loaded = None

    @property
    def _state(self) -> Assembly:
        if self._loaded is None:
            raise RuntimeError("the engine is not loaded")
        return self._loaded

    def _step(self, engine: Assembly, wait_for_programs: bool) -> StepResult:
        ended, self._ended = self._ended, []
        plan = engine.scheduler.schedule()
        score = self._scores.wanted(plan.chunk)
        # A plan is a proposal until it is committed: what is left out is proposed again by the next step.
        chosen = plan if wait_for_programs else engine.executor.at_hand(plan, score=score)
        if not chosen.sequences:
            return StepResult(outputs=ended, lacking=bool(plan.sequences))
        plan = chosen
        self.steps += 1
        sent = engine.scheduler.send(plan)
        try:
            drawn = engine.executor.run(plan, score=score)
        except Exception as error:
            return StepResult(outputs=ended, failed=self._recover(plan, sent, error))
        failed = [(number, self._fail(number, "it had no token to draw")) for number in drawn.broken]
        self._scores.record(plan.chunk, drawn.scores)
        accepted = engine.scheduler.commit(sent, drawn.tokens)
        outputs = ended + [self._output(one, drawn) for one in accepted]
        return StepResult(outputs=outputs, failed=failed, tokens=plan.tokens)

    def _output(self, accepted: Accepted, drawn: Drawn) -> SequenceOutput:
        request = accepted.sequence.request
        return SequenceOutput(
            request.id,
            [accepted.token],
            [drawn.logprobs[request.id]] if request.logprobs else None,
            accepted.finish_reason,
            accepted.sequence.cached_tokens or 0,
            prompt_logprobs=self._scores.take(request.id),
            top_logprobs=[list(drawn.top[request.id][: request.top_logprobs])] if request.top_logprobs else None,
        )

    def _recover(self, plan: StepPlan, sent: SentStep, error: Exception) -> list[tuple[int, InferenceError]]:
        """Decide what a failed step means: who fails, what is computed again, or that it is over."""
        fault = classify_device_error(error)
        logger.error("step %d failed (%s)", self.steps, fault.name, exc_info=error)
        self._state.scheduler.drop(sent)
        if fault is DeviceFault.POISONED:
            raise CudaContextPoisoned(fault_name(error)) from error
        if fault is DeviceFault.OUT_OF_MEMORY:
            self._run_fewer(len(plan.sequences) // 2, error)
            return []
        failed = [(s.id, self._fail(s.id, fault_name(error))) for s in plan.sequences]
        # A failure while tracing leaves the cache alone; one that was found on the device took it along.
        if isinstance(error, RuntimeError) or self._state.executor.lost:
            self._rebuild(error)
        return failed

    def _run_fewer(self, running: int, error: Exception) -> None:
        if running < 1:
            raise OutOfMemory("the device has too little memory for one sequence") from error
        self._rebuild(error, running)

    def _rebuild(self, error: Exception, max_running: int | None = None) -> None:
        self._state.scheduler.restart_all(max_running)
        try:
            self._state.executor.rebuild()
        except Exception as again:
            if classify_device_error(again) is DeviceFault.OUT_OF_MEMORY:
                raise OutOfMemory("the cache cannot be allocated again") from error
            raise CudaContextPoisoned(fault_name(again)) from error

    def _fail(self, request_id: int, why: str) -> InferenceError:
        # What was computed for it may be what is wrong: nobody else is to go on from there.
        self._state.scheduler.abort(request_id, forget=True)
        self.abort(request_id)
        return Internal(f"the model's step failed: {why}")

    def _describe(self, load_s: float, warmup_s: float) -> Ready:
        model = self._state.model
        return Ready(
            max_model_len=model.max_model_len,
            max_num_seqs=self.settings.max_num_seqs,
            vocab_size=model.config.vocab_size,
            dtype=model.dtype,
            backend=model.device.platform,
            device=model.device.kind,
            num_pages=model.num_pages,
            page_size=self.settings.page_size,
            load_s=load_s,
            warmup_s=warmup_s,
        )
