"""What the next step computes. Pure: no device, no clock, no I/O.

A step is every decoding sequence (one token each), a chunk of a prompt, and what else of prompts is short, under a
token budget. Where nothing but decoding is left to do, a step is several tokens of each sequence.

A step is planned (``schedule``), sent to the device (``send``) and booked (``commit``) or given up (``drop``). The next
one may be sent before the last one is booked: sequences then go on with tokens that only the device knows.
"""

from bisect import insort
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as SequenceOf
from itertools import takewhile

from attrs import define, field, frozen, validators

from atomr_trio.core import Backpressure, FinishReason

from .blocks import BlockPool, pages_for
from .frames import SequenceRequest
from .pace import Costs, Pace
from .page_ledger import PageLedger
from .prefix_cache import PageHasher
from .sequence import Sequence, SequenceState, finish_reason, is_exhausted
from .step_plan import Accepted, Chunk, SentStep, Share, StepPlan

__all__ = ["Accepted", "Chunk", "Scheduler", "SchedulerLimits", "SentStep", "StepPlan"]


@frozen(kw_only=True)
class SchedulerLimits:
    """Bounds of a step and of the queue, in tokens and sequences.

    Args:
        max_num_seqs: sequences that run at once.
        max_model_len: longest sequence, prompt and answer.
        chunk: most prompt tokens in a step.
        chunk_busy: the same while sequences decode, so that a long prompt does not stall their streams.
        pace: what steps cost, where long prompts wait for those who decode; ``None``: a piece goes with each step.
        short: a prompt that lacks at most so many tokens is computed at once, busy or not: one longer gap in the
            streams is better than several.
        resume_first: nobody decodes while a stream of an earlier process, which has waited for longer than anybody
            here, still lacks tokens, though at most so many; 0: they take turns.
        burst: a step takes further prompts that it can finish, as long as all of its prompts have at most so many
            tokens: who arrives together starts together, and the batch fills in few steps.
        decode_steps: tokens that each sequence gets in one step, while all that there is to do is to decode.
        max_waiting: sequences that may wait.
        watermark: pages that an admission leaves free for those who run, unless nobody runs.
        ageing: how many later arrivals one level of priority is worth. No request is overtaken by more than this times
            its distance from the best priority, so that every class gets its turn.
    """

    max_num_seqs: int = field(validator=validators.ge(1))
    max_model_len: int = field(validator=validators.ge(2))
    chunk: int = field(validator=validators.ge(1))
    chunk_busy: int = field(validator=validators.ge(1))
    pace: Costs | None = None
    short: int = field(default=0, validator=validators.ge(0))
    resume_first: int = field(default=0, validator=validators.ge(0))
    burst: int = field(default=0, validator=validators.ge(0))
    decode_steps: int = field(default=1, validator=validators.ge(1))
    max_waiting: int = field(default=1024, validator=validators.ge(1))
    watermark: int = field(default=0, validator=validators.ge(0))
    ageing: int = field(default=64, validator=validators.ge(0))

    @property
    def token_budget(self) -> int:
        """Most tokens of one step."""
        mixed = self.max_num_seqs - 1 + max(self.chunk, self.chunk_busy, self.burst)
        return max(mixed, self.max_num_seqs * self.decode_steps)


@define
class Scheduler:
    """Decides who runs, owns the queue and the page accounting.

    At most ``max_running`` sequences are admitted, which may be lowered for a while where memory is short.

    Whoever has the lower rank (arrival, plus ``ageing`` for each level of priority) is admitted sooner and gives its
    pages up later; a rank never changes. The pool must have room for one sequence of ``max_model_len``: then the
    running sequence of the lowest rank can always go on, and so every request ends.

    Args:
        limits: of a step and of the queue.
        pool: the pages.
        hasher: names what they hold.
    """

    limits: SchedulerLimits
    pool: BlockPool
    _hasher: PageHasher = field(factory=PageHasher)
    waiting: list[Sequence] = field(init=False, factory=list[Sequence])
    running: list[Sequence] = field(init=False, factory=list[Sequence])
    preemptions: int = field(init=False, default=0)
    max_running: int = field(init=False)
    _ledger: PageLedger = field(init=False)
    _pace: Pace = field(init=False)
    _open: dict[int, Sequence] = field(init=False, factory=dict[int, Sequence])
    _arrivals: int = field(init=False, default=0)
    _sent: int = field(init=False, default=0)
    _on_device: deque[SentStep] = field(init=False, factory=deque[SentStep])

    def __attrs_post_init__(self) -> None:
        self.max_running = self.limits.max_num_seqs
        self._ledger = PageLedger(self.pool, self._hasher)
        self._pace = Pace(self.limits.pace)
        if pages_for(self.limits.max_model_len, self.pool.page_size) > self.pool.num_pages:
            raise ValueError("the pool is too small for one sequence of max_model_len")

    @property
    def idle(self) -> bool:
        """Nothing to do."""
        return not self._open

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._open

    def holds(self, sequence: Sequence) -> bool:
        """This very sequence is open; another one may have its number by now."""
        return self._open.get(sequence.id) is sequence

    def rank(self, sequence: Sequence) -> tuple[int, int]:
        """Return what sequences are ordered by, lowest first."""
        return sequence.arrival + self.limits.ageing * sequence.request.priority, sequence.arrival

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
        insort(self.waiting, sequence, key=self.rank)
        return sequence

    def abort(self, request_id: int, *, forget: bool = False) -> Sequence | None:
        """Forget a request in whatever phase it is. ``None``: there is no such request.

        Its pages are free as soon as no step on the device has a part of it.

        Args:
            request_id: whose.
            forget: nobody shall find its pages in the cache: what was computed for it is in doubt.
        """
        sequence = self._open.get(request_id)
        if sequence is not None:
            self._leave(sequence, forget=forget)
        return sequence

    def drawing(self, request_id: int) -> int:
        """Return how many tokens the steps on the device draw for a request; 0 if there is no such request."""
        sequence = self._open.get(request_id)
        return 0 if sequence is None else sequence.pending

    def schedule(self) -> StepPlan:
        """Choose the next step, allot its pages, preempt where they do not suffice.

        Never empty, unless this is ``idle`` or a step on the device has to be booked first.
        """
        plan = self._plan([], may_admit=True) if self._resumes_first() else None
        # If there is no room for it, the others do not wait.
        if plan is not None and any(chunk.sequence.is_resumed for chunk in plan.chunks):
            return plan
        before = self.preemptions
        decodes = self._grow_decodes()
        # A newcomer would take the very pages that somebody has just given up.
        return self._plan(decodes, may_admit=self.preemptions == before)

    def schedule_alone(self, sequence: Sequence) -> StepPlan:
        """Choose the next step of one open sequence, with nobody else in it. No step may be on the device."""
        if sequence.state is SequenceState.WAITING:
            self._make_room(sequence, lambda: self._ledger.admit(sequence, 0))
            self.waiting.remove(sequence)
            self._let_in(sequence)
        if sequence.lacks_prompt:
            return StepPlan((), (self._chunk_of(sequence, busy=False),))
        self._make_room(sequence, lambda: self._ledger.grow(sequence))
        return StepPlan((sequence,))

    def _make_room(self, sequence: Sequence, taken: Callable[[], bool]) -> None:
        # Ends, because the pool has room for any one.
        while not taken():
            self._preempt(next(one for one in reversed(self.running) if one is not sequence))

    def _plan(self, decodes: list[Sequence], *, may_admit: bool) -> StepPlan:
        chunks: list[Chunk] = []
        for sequence in self.running:
            if sequence.lacks_prompt:
                self._include(sequence, chunks, busy=bool(decodes))
        if may_admit:
            self._admit(decodes, chunks)
        return StepPlan(tuple(decodes), tuple(chunks), self._steps(decodes))

    def send(self, plan: StepPlan) -> SentStep:
        """Note that a plan (or a part of it) is being computed: each of its sequences goes on after it from now on."""
        self._sent += 1
        self._pace.note(len(plan.decodes), [chunk for chunk in plan.chunks if self._is_long(chunk.sequence)])
        coming = self._completed_by(plan.chunks)
        shares = [self._advance(sequence, plan.steps, draws=plan.steps) for sequence in plan.decodes]
        shares += [self._advance(chunk.sequence, chunk.length, draws=int(chunk.draws)) for chunk in plan.chunks]
        step = SentStep(self._sent, tuple(shares), coming)
        self._on_device.append(step)
        return step

    def commit(self, step: SentStep, drawn: Mapping[int, SequenceOf[int]]) -> list[Accepted]:
        """Book the oldest step on the device. What was drawn after the last token of a sequence is thrown away.

        Args:
            step: which.
            drawn: by request number the tokens of each sequence that draws, bar those who left since: as many as the
                step draws, or those up to its last.

        Raises:
            ValueError: another step is older, or the step is over.
        """
        self._take_off(step)
        counting = [share for share in step.shares if share.counts]
        booked = [self._book(share, drawn[share.sequence.id] if share.draws else ()) for share in counting]
        return [accepted for accepted in booked if accepted is not None]

    def drop(self, step: SentStep) -> None:
        """Note that the oldest step on the device failed: who had a part in it is requeued, and computed again.

        Raises:
            ValueError: another step is older, or the step is over.
        """
        self._take_off(step)
        for share in step.shares:
            if share.counts:
                self._preempt(share.sequence)

    def restart_all(self) -> None:
        """Requeue everybody who runs, in order: the content of the pages is lost, and no step is on the device."""
        self._on_device.clear()
        self.pool.release_up_to(self._sent)
        while self.running:
            self._preempt(self.running[-1])
        self.pool.forget_all()

    def _resumes_first(self) -> bool:
        most = self.limits.resume_first
        return most > 0 and any(s.is_resumed and 1 < s.remaining <= most for s in (*self.running, *self.waiting))

    def _grow_decodes(self) -> list[Sequence]:
        longest = self.limits.max_model_len
        decoding = [s for s in self.running if s.can_decode and not is_exhausted(s, longest)]
        # Growing one may preempt others: victims come from the end of the list, so they are seen after that.
        return [s for s in decoding if s.state is SequenceState.RUNNING and self._grow(s)]

    def _grow(self, sequence: Sequence) -> bool:
        while not self._ledger.grow(sequence):
            # Enough is on its way: sit this step out rather than drive somebody off.
            if self._ledger.lacks(sequence) <= self.pool.free + self.pool.fenced:
                return False
            victim = self.running[-1]
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _steps(self, decodes: list[Sequence]) -> int:
        """How many tokens those who decode get at once: several if nobody is kept waiting, and nothing is in doubt."""
        steps, longest = self.limits.decode_steps, self.limits.max_model_len
        going_on = [s for s in self.running if not is_exhausted(s, longest)]
        # The others have a prompt to compute, or sit this step out, and are not to wait for several.
        if steps == 1 or not decodes or self.waiting or len(going_on) > len(decodes):
            return 1
        can_all = all(s.decodes_alone and not is_exhausted(s, longest, steps - 1) for s in going_on)
        return steps if can_all and self._ledger.grow_all(decodes, steps) else 1

    def _preempt(self, victim: Sequence) -> None:
        self.running.remove(victim)
        self._ledger.give_back(victim)
        victim.state = SequenceState.WAITING
        insort(self.waiting, victim, key=self.rank)
        self.preemptions += 1

    def _admit(self, decodes: list[Sequence], chunks: list[Chunk]) -> None:
        """Let sequences in until the step is full; those with a single token join ``decodes``."""
        while self.waiting and len(self.running) < self.max_running and self._has_room(chunks):
            sequence = self._next
            if self._is_held_back(sequence, chunks) or not self._ledger.admit(sequence, self._reserve):
                return
            self.waiting.remove(sequence)
            self._let_in(sequence)
            if not sequence.lacks_prompt:
                decodes.append(sequence)
            elif not self._include(sequence, chunks, busy=bool(decodes)):
                return

    @property
    def _next(self) -> Sequence:
        # Of the streams that an earlier process left, the shortest first: half of them go on after much less than half
        # of the work, and there are no more to come that could keep a long one waiting.
        first = self.waiting[0]
        if not (self.limits.resume_first and first.is_resumed):
            return first
        level = first.request.priority
        same = takewhile(lambda one: one.is_resumed and one.request.priority == level, self.waiting)
        return min(same, key=lambda one: one.remaining)

    def _let_in(self, sequence: Sequence) -> None:
        insort(self.running, sequence, key=self.rank)
        sequence.state = SequenceState.RUNNING

    def _has_room(self, chunks: list[Chunk]) -> bool:
        return not chunks or _tokens(chunks) < self.limits.burst

    def _include(self, sequence: Sequence, chunks: list[Chunk], *, busy: bool) -> bool:
        """Add a piece of a prompt to a step, if it is the first one, or the last of its prompt and there is room."""
        if busy and self._is_long(sequence) and not self._pace.allows:
            return False
        chunk = self._chunk_of(sequence, busy=busy)
        fits = not chunks or (chunk.completes and _tokens(chunks) + chunk.length <= self.limits.burst)
        if fits:
            chunks.append(chunk)
        return fits

    @property
    def _reserve(self) -> int:
        return self.limits.watermark if self.running else 0

    def _is_held_back(self, sequence: Sequence, chunks: list[Chunk]) -> bool:
        # One step later it finds in the cache what it would compute a second time now.
        coming = [*(step.coming for step in self._on_device), self._completed_by(chunks)]
        return any(hashes and self._ledger.waits_for(sequence, hashes) for hashes in coming)

    def _chunk_of(self, sequence: Sequence, *, busy: bool) -> Chunk:
        limits = self.limits
        most = limits.chunk_busy if busy and self._is_long(sequence) else limits.chunk
        return Chunk(sequence, sequence.num_computed, min(sequence.remaining, most))

    def _is_long(self, sequence: Sequence) -> bool:
        # Who has begun to answer is one of the streams that long prompts are to spare: preempted, or resumed.
        return sequence.remaining > self.limits.short and not sequence.generated

    def _completed_by(self, chunks: Iterable[Chunk]) -> frozenset[bytes]:
        return frozenset(
            page for chunk in chunks for page in self._ledger.completing(chunk.sequence, chunk.start + chunk.length)
        )

    def _advance(self, sequence: Sequence, tokens: int, *, draws: int) -> Share:
        sequence.num_computed += tokens
        sequence.pending += draws
        sequence.last_step = self._sent
        return Share(sequence, sequence.life, sequence.num_computed, draws)

    def _take_off(self, step: SentStep) -> None:
        if not self._on_device or self._on_device[0] is not step:
            raise ValueError(f"step {step.number} is not the oldest on the device")
        self._on_device.popleft()
        self.pool.release_up_to(step.number)

    def _book(self, share: Share, drawn: SequenceOf[int]) -> Accepted | None:
        sequence = share.sequence
        sequence.pending -= share.draws
        taken, reason = self._extend(sequence, drawn)
        if not sequence.draws and share.computed == sequence.prompt_len:
            reason = FinishReason.STOP
        # What was computed of tokens that are thrown away is nobody's.
        self._ledger.remember(sequence, min(share.computed, len(sequence.tokens) - 1))
        if reason is not None:
            self._leave(sequence)
        return Accepted(sequence, taken, reason) if taken or reason else None

    def _extend(self, sequence: Sequence, drawn: SequenceOf[int]) -> tuple[tuple[int, ...], FinishReason | None]:
        for count, token in enumerate(drawn, 1):
            sequence.tokens.append(token)
            reason = finish_reason(sequence, self.limits.max_model_len)
            if reason is not None:
                return tuple(drawn[:count]), reason
        return tuple(drawn), None

    def _leave(self, sequence: Sequence, *, forget: bool = False) -> None:
        del self._open[sequence.id]
        if sequence.state is SequenceState.RUNNING:
            self.running.remove(sequence)
        else:
            self.waiting.remove(sequence)
        self._ledger.give_back(sequence, forget=forget)
        sequence.state = SequenceState.GONE


def _tokens(chunks: Iterable[Chunk]) -> int:
    return sum(chunk.length for chunk in chunks)
