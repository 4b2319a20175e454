"""What the next step computes. Pure: no device, no clock, no I/O.

A step is every decoding sequence (one token each) and at most one chunk of one prompt, under a token budget.
"""

from collections import deque
from collections.abc import Mapping

from attrs import define, field, frozen, validators

from atomr_trio.core import Backpressure, FinishReason

from .blocks import BlockPool, pages_for
from .frames import SequenceRequest
from .sequence import Sequence, SequenceState, finish_reason

__all__ = ["Accepted", "Chunk", "Scheduler", "SchedulerLimits", "StepPlan"]


@frozen(kw_only=True)
class SchedulerLimits:
    """Bounds of a step and of the queue, in tokens and sequences.

    Args:
        max_num_seqs: sequences that run at once.
        max_model_len: longest sequence, prompt and answer.
        chunk: most prompt tokens in a step.
        chunk_busy: the same while sequences decode, so that a long prompt does not stall their streams.
        max_waiting: sequences that may wait.
        watermark: pages that an admission leaves free for those who run, unless nobody runs.
    """

    max_num_seqs: int = field(validator=validators.ge(1))
    max_model_len: int = field(validator=validators.ge(2))
    chunk: int = field(validator=validators.ge(1))
    chunk_busy: int = field(validator=validators.ge(1))
    max_waiting: int = field(default=1024, validator=validators.ge(1))
    watermark: int = field(default=0, validator=validators.ge(0))

    @property
    def token_budget(self) -> int:
        """Most tokens of one step."""
        return self.max_num_seqs - 1 + max(self.chunk, self.chunk_busy)


@frozen
class Chunk:
    """A piece of a prompt: tokens ``start .. start + length`` of a sequence."""

    sequence: Sequence
    start: int
    length: int

    @property
    def completes(self) -> bool:
        """After this chunk the next token is drawn."""
        return self.start + self.length == len(self.sequence.tokens)


@frozen
class StepPlan:
    """The work of one step: the last token of each of ``decodes``, and one chunk."""

    decodes: tuple[Sequence, ...]
    chunk: Chunk | None

    @property
    def tokens(self) -> int:
        """Rows that are computed."""
        return len(self.decodes) + (self.chunk.length if self.chunk else 0)

    @property
    def sequences(self) -> tuple[Sequence, ...]:
        """Everybody who takes part."""
        return self.decodes if self.chunk is None else (*self.decodes, self.chunk.sequence)

    @property
    def drawing(self) -> tuple[Sequence, ...]:
        """Those who get a token from this step."""
        return self.sequences if self.chunk is None or self.chunk.completes else self.decodes


@frozen
class Accepted:
    """A token that was added to a sequence, and why it was the last, if so."""

    sequence: Sequence
    token: int
    finish_reason: FinishReason | None


@define
class Scheduler:
    """Decides who runs, owns the queue and the page accounting.

    The pool must have room for one sequence of ``max_model_len``: then the sequence that was admitted first can always
    go on, and so every request ends.
    """

    limits: SchedulerLimits
    pool: BlockPool
    waiting: deque[Sequence] = field(init=False, factory=deque[Sequence])
    running: list[Sequence] = field(init=False, factory=list[Sequence])
    preemptions: int = field(init=False, default=0)
    _open: dict[int, Sequence] = field(init=False, factory=dict[int, Sequence])
    _arrivals: int = field(init=False, default=0)
    _max_running: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._max_running = self.limits.max_num_seqs
        if pages_for(self.limits.max_model_len, self.pool.page_size) > self.pool.num_pages:
            raise ValueError("the pool is too small for one sequence of max_model_len")

    @property
    def idle(self) -> bool:
        """Nothing to do."""
        return not self._open

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._open

    def add(self, request: SequenceRequest) -> Sequence:
        """Queue a request that fits ``max_model_len`` and whose number is not in use.

        Raises:
            Backpressure: the queue is full.
        """
        if len(self.waiting) >= self.limits.max_waiting:
            raise Backpressure(f"{len(self.waiting)} requests are waiting")
        sequence = Sequence.of(request, self._arrivals)
        self._arrivals += 1
        self._open[request.id] = sequence
        self.waiting.append(sequence)
        return sequence

    def abort(self, request_id: int) -> Sequence | None:
        """Forget a request in whatever phase it is; its pages are free at once. ``None``: there is no such request."""
        sequence = self._open.get(request_id)
        if sequence is not None:
            self._leave(sequence)
        return sequence

    def schedule(self) -> StepPlan:
        """Choose the next step, allot its pages, preempt where they do not suffice. Not empty unless ``idle``."""
        decodes = self._grow_decodes()
        prefill = next((s for s in self.running if s.remaining > 1), None)
        if prefill is None:
            prefill = self._admit(decodes)
        return StepPlan(tuple(decodes), prefill and self._chunk_of(prefill, busy=bool(decodes)))

    def commit(self, plan: StepPlan, drawn: Mapping[int, int]) -> list[Accepted]:
        """Book a computed step. ``drawn`` has a token for each of ``plan.drawing``, bar those who left since."""
        for sequence in plan.decodes:
            sequence.num_computed += 1
        if plan.chunk is not None:
            plan.chunk.sequence.num_computed += plan.chunk.length
        running = (s for s in plan.drawing if s.state is SequenceState.RUNNING)
        return [self._accept(sequence, drawn[sequence.id]) for sequence in running]

    def restart_all(self, max_running: int | None = None) -> None:
        """Requeue everybody who runs, in order: the content of the pages is lost. Optionally run fewer from now on."""
        while self.running:
            self._preempt_last()
        if max_running is not None:
            self._max_running = max(1, max_running)

    def _grow_decodes(self) -> list[Sequence]:
        decoding = [sequence for sequence in self.running if sequence.remaining == 1]
        # Growing one may preempt others: victims come from the end of the list, so they are seen after that.
        return [s for s in decoding if s.state is SequenceState.RUNNING and self._grow(s)]

    def _grow(self, sequence: Sequence) -> bool:
        needed = pages_for(len(sequence.tokens), self.pool.page_size) - len(sequence.pages)
        while (pages := self.pool.take(needed)) is None:
            if self._preempt_last() is sequence:
                return False
        sequence.pages += pages
        return True

    def _preempt_last(self) -> Sequence:
        victim = self.running.pop()
        self._give_pages_back(victim)
        victim.state = SequenceState.WAITING
        # The queue is in order of arrival, and whoever runs arrived before everybody in it.
        self.waiting.appendleft(victim)
        self.preemptions += 1
        return victim

    def _admit(self, decodes: list[Sequence]) -> Sequence | None:
        """Let sequences in until one of them has a chunk to compute; those with a single token join ``decodes``."""
        while self.waiting and len(self.running) < self._max_running:
            sequence = self.waiting[0]
            if not self._take_prompt_pages(sequence):
                return None
            self.running.append(self.waiting.popleft())
            sequence.state = SequenceState.RUNNING
            if sequence.remaining > 1:
                return sequence
            decodes.append(sequence)
        return None

    def _take_prompt_pages(self, sequence: Sequence) -> bool:
        needed = pages_for(len(sequence.tokens), self.pool.page_size)
        reserve = self.limits.watermark if self.running else 0
        if needed + reserve > self.pool.free:
            return False
        sequence.pages = self.pool.take(needed) or []
        return True

    def _chunk_of(self, sequence: Sequence, *, busy: bool) -> Chunk:
        most = self.limits.chunk_busy if busy else self.limits.chunk
        return Chunk(sequence, sequence.num_computed, min(sequence.remaining, most))

    def _accept(self, sequence: Sequence, token: int) -> Accepted:
        sequence.tokens.append(token)
        reason = finish_reason(sequence, self.limits.max_model_len)
        if reason is not None:
            self._leave(sequence)
        return Accepted(sequence, token, reason)

    def _leave(self, sequence: Sequence) -> None:
        del self._open[sequence.id]
        if sequence.state is SequenceState.RUNNING:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        self._give_pages_back(sequence)
        sequence.state = SequenceState.GONE

    def _give_pages_back(self, sequence: Sequence) -> None:
        self.pool.give_back(sequence.pages)
        sequence.pages = []
        sequence.num_computed = 0
