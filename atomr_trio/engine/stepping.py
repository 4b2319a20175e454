"""Steps one after the other, the next one on the device before the last one is read; and what to do when one fails."""

import logging
from collections import deque
from collections.abc import Callable

from attrs import define, field, frozen

from atomr_trio.core import CudaContextPoisoned, InferenceError, Internal, OutOfMemory

from .assembly import Assembly
from .device_errors import DeviceFault, classify_device_error, fault_name
from .execution import Work
from .frames import SequenceOutput
from .pooling import Poolings
from .prompt_scores import PromptScores
from .readout import Drawn, Started, collect
from .running_budget import RunningBudget
from .scheduler import Accepted, SentStep, StepPlan
from .sequence import Sequence, is_over_with
from .trials import Trials

__all__ = ["StepResult", "Stepper"]

logger: logging.Logger = logging.getLogger(__name__)

_Failed = list[tuple[int, InferenceError]]


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


@frozen(eq=False)
class _Flight:
    """A step on the device."""

    plan: StepPlan
    sent: SentStep
    started: list[Started]


@define
class Stepper:
    """Keeps the device busy.

    Args:
        parts: of the engine.
        ahead: how many steps are on the device at once.
        scores: of prompts.
        poolings: of prompts that become embeddings.
        on_dispatch: called before each step; what it raises counts as raised by the device.
    """

    _parts: Assembly
    _ahead: int
    _scores: PromptScores
    _poolings: Poolings
    _on_dispatch: Callable[[], None] | None = None
    steps: int = field(init=False, default=0)
    _flights: deque[_Flight] = field(init=False, factory=deque[_Flight])
    _budget: RunningBudget = field(init=False)
    _trials: Trials = field(init=False, factory=Trials)

    def __attrs_post_init__(self) -> None:
        self._budget = RunningBudget(self._parts.scheduler.limits.max_num_seqs)

    @property
    def busy(self) -> bool:
        """There is something to read from the device."""
        return bool(self._flights)

    def step(self, *, wait_for_programs: bool) -> StepResult:
        """Dispatch what can be dispatched, and return what the oldest step on the device brought.

        Raises:
            CudaContextPoisoned: the device context is lost.
            OutOfMemory: there is too little memory for one sequence.
        """
        lacking = False
        suspect = self._trials.next(self._parts.scheduler.holds)
        # Another step on the device would be a second one that may have failed.
        ahead = self._ahead if suspect is None else 1
        while len(self._flights) < ahead and not lacking:
            work = self._next_work(suspect, wait_for_programs=wait_for_programs)
            if work is None:
                break
            lacking = not work.plan.sequences
            failed = None if lacking else self._launch(work)
            if failed is not None:
                return StepResult(failed=failed)
        return self._land() if self._flights else StepResult(lacking=lacking)

    def _next_work(self, suspect: Sequence | None, *, wait_for_programs: bool) -> Work | None:
        scheduler = self._parts.scheduler
        # A plan is a proposal until it is sent: what is left out is proposed again by the next step.
        plan = scheduler.schedule() if suspect is None else scheduler.schedule_alone(suspect)
        if not plan.sequences:
            return None
        return self._parts.executor.prepare(plan, self._scores.wanted, wait_for_programs=wait_for_programs)

    def _launch(self, work: Work) -> _Failed | None:
        """Dispatch a step; return who failed with it, if it did."""
        sent = self._parts.scheduler.send(work.plan)
        self._flights.append(_Flight(work.plan, sent, []))
        try:
            if self._on_dispatch is not None:
                self._on_dispatch()
            self._flights[-1].started.extend(self._parts.executor.start(work))
        except Exception as error:
            self.steps += 1
            return self._recover(error)
        return None

    def _land(self) -> StepResult:
        flight = self._flights[0]
        self.steps += 1
        try:
            drawn = collect(flight.started)
        except Exception as error:
            return StepResult(failed=self._recover(error))
        del self._flights[0]
        self._budget.landed()
        self._parts.scheduler.max_running = self._budget.allowed
        tokens = drawn.tokens
        open_ones = [s for s in flight.plan.drawing if self._parts.scheduler.holds(s)]
        # What becomes of a sequence beyond its end is nobody's concern.
        broken = [s for s in open_ones if s.id in drawn.broken and not is_over_with(s, tokens[s.id])]
        failed = [(s.id, self._fail(s, "it had no token to draw")) for s in broken]
        for chunk in flight.plan.chunks:
            if chunk.sequence.id in drawn.scores and self._parts.scheduler.holds(chunk.sequence):
                self._scores.record(chunk, drawn.scores[chunk.sequence.id])
        failed += self._pool(flight, drawn)
        accepted = self._parts.scheduler.commit(flight.sent, tokens)
        self._trials.landed(flight.plan.sequences, [one.sequence for one in accepted])
        return StepResult(
            outputs=[self._output(one, drawn) for one in accepted], failed=failed, tokens=flight.plan.tokens
        )

    def _pool(self, flight: _Flight, drawn: Drawn) -> _Failed:
        """Book the parts of embeddings; return whose are no numbers."""
        # Who has lost its pages since begins anew: a part that is booked twice would count twice.
        counting = {share.sequence for share in flight.sent.shares if share.counts}
        pooled = [chunk for chunk in flight.plan.chunks if chunk.pooled is not None and chunk.sequence in counting]
        broken = [c.sequence for c in pooled if not self._poolings.record(c, drawn.pooled[c.sequence.id])]
        return [(s.id, self._fail(s, "its embedding is not made of numbers")) for s in broken]

    def _output(self, accepted: Accepted, drawn: Drawn) -> SequenceOutput:
        request = accepted.sequence.request
        draws = drawn.draws.get(request.id, [])[: len(accepted.tokens)]
        prompt = self._scores.take(request.id)
        return SequenceOutput(
            request.id,
            list(accepted.tokens),
            [one.logprob for one in draws] if request.logprobs else None,
            accepted.finish_reason,
            accepted.sequence.cached_tokens or 0,
            prompt_logprobs=None if prompt is None else prompt.logprobs,
            top_logprobs=[list(one.top[: request.top_logprobs]) for one in draws] if request.top_logprobs else None,
            prompt_top_logprobs=prompt.top if prompt is not None and request.prompt_top_logprobs else None,
            embedding=self._poolings.take(request.id),
        )

    def _recover(self, error: Exception) -> _Failed:
        """Decide what a failed step means: who fails, what is computed again, or that it is over."""
        present = list(dict.fromkeys(sequence for flight in self._flights for sequence in flight.plan.sequences))
        fault = classify_device_error(error)
        logger.error("step %d failed (%s)", self.steps, fault.name, exc_info=error)
        self._abandon()
        if fault is DeviceFault.POISONED:
            raise CudaContextPoisoned(fault_name(error)) from error
        if fault is DeviceFault.OUT_OF_MEMORY:
            self._run_fewer(len(present), error)
            return []
        guilty = self._trials.failed([s for s in present if self._parts.scheduler.holds(s)])
        failed = [(s.id, self._fail(s, fault_name(error))) for s in guilty]
        # A failure while tracing leaves the cache alone; one that was found on the device took it along.
        if isinstance(error, RuntimeError) or self._parts.executor.state.lost:
            self._rebuild(error)
        return failed

    def _abandon(self) -> None:
        """Give all steps on the device up: whatever the failed one computed, those after it began with it."""
        for flight in self._flights:
            self._parts.scheduler.drop(flight.sent)
        self._flights.clear()
        self._parts.executor.forget()

    def _run_fewer(self, running: int, error: Exception) -> None:
        if not self._budget.exhausted(running):
            raise OutOfMemory("the device has too little memory for one sequence") from error
        self._parts.scheduler.max_running = self._budget.allowed
        self._rebuild(error)

    def _rebuild(self, error: Exception) -> None:
        self._parts.scheduler.restart_all()
        try:
            self._parts.executor.state.rebuild()
        except Exception as again:
            if classify_device_error(again) is DeviceFault.OUT_OF_MEMORY:
                raise OutOfMemory("the cache cannot be allocated again") from error
            raise CudaContextPoisoned(fault_name(again)) from error

    def _fail(self, sequence: Sequence, why: str) -> InferenceError:
        # What was computed for it may be what is wrong: nobody else is to go on from there.
        self._parts.scheduler.abort(sequence.id, forget=True)
        self._scores.forget(sequence.id)
        self._poolings.forget(sequence.id)
        return sequence.refusal or Internal(f"the model's step failed: {why}")
