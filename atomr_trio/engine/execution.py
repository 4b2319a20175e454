"""Runs planned steps on the device: chooses programs and dispatches them.

A step is prepared (which programs does it take, and are they there?), started, and read by `readout.collect`. The next
one may be started before the last one is read: the tokens that it begins with are on the device.
"""

from collections.abc import Callable, Iterable

from attrs import define, evolve, field

from .buckets import POOLED, Buckets, Kind, ProgramKey
from .compile_cache import CompileCache
from .device_state import DeviceState, Forwarded, Looped, Program
from .drawing import DrawCall, Drawing, Needs
from .dry_run import run_dry
from .packing import Row, Rows
from .readout import Started
from .scheduler import Chunk, StepPlan
from .sequence import Sequence
from .step_work import Prefill, Work, last_page, prefills_of

__all__ = ["StepExecutor", "Work"]


@define
class StepExecutor:
    """Dispatches steps.

    Args:
        state: what they work on.
        programs: compiled for its shapes.
        buckets: which shapes there are.
        page_size: tokens a page.
        drawing: draws from the logits.
    """

    state: DeviceState
    _programs: CompileCache
    _buckets: Buckets
    _page_size: int
    drawing: Drawing
    _places: dict[Sequence, int] = field(init=False, factory=dict[Sequence, int])
    _ran: set[ProgramKey] = field(init=False, factory=set[ProgramKey])

    def warm_up(self, on_progress: Callable[[int, int], None]) -> None:
        """Compile all shapes now; ``on_progress`` is called with (programs done, programs in all)."""
        self._programs.warm_up(self._buckets.everything(), on_progress)

    def prepare(
        self, plan: StepPlan, scored: Callable[[Chunk], bool] = lambda _: False, *, wait_for_programs: bool = True
    ) -> Work:
        """Say how a plan is computed. Call it before the plan counts as sent.

        Args:
            plan: what to compute.
            scored: the own tokens of such a chunk get log probabilities.
            wait_for_programs: take all of it, even if a program has to be compiled first. Otherwise what lacks its
                program is left out, and the program is being compiled. A loop that is not there yet is not waited
                for either way: the plan is done once.
        """
        plan = plan if self._can_loop(plan) else evolve(plan, steps=1)
        decodes = self._decoding(plan)
        work = Work(plan, decodes, prefills_of(plan.chunks, scored, self._groups(plan), self._page_size))
        return work if wait_for_programs else self._at_hand(work)

    def run_dry(self, keys: Iterable[ProgramKey]) -> None:
        """Run these programs once, on nothing, if they are compiled and have not been. No step may be under way."""
        for key in keys:
            if key not in self._ran and key in self._programs.compiled:
                self._ran.add(key)
                run_dry(self.state, key, self._programs.get(key), self._programs.get)

    def has_run(self, key: ProgramKey) -> bool:
        """Say whether the program of this shape was run dry."""
        return key in self._ran

    def forget(self) -> None:
        """Let go of what only the next step could use: a step has failed."""
        self.state.forget()
        self._places = {}

    def start(self, work: Work) -> list[Started]:
        """Dispatch a step; returns before it is computed.

        Raises:
            Exception: whatever the compiler or the device raises; see ``classify_device_error``.
        """
        started: list[Started] = []
        places: dict[Sequence, int] = {}
        # Everything is dispatched before anything is waited for.
        if work.plan.steps > 1:
            started.append(self._start_loop(work.decodes, places))
        elif work.decodes:
            needs = self.drawing.needs(work.decodes)
            forwarded = self._decode(work.decodes, needs)
            started.append(self._draw(forwarded, forwarded.rows, needs, 0, places))
        # Behind all that decode, however many rows of their program are nobody's.
        first_place = self._buckets.rows[-1]
        for prefill in work.prefills:
            started.append(self._start_prefill(prefill, first_place, places))
            first_place += len(prefill.rows)
        self._places = places
        return started

    def _groups(self, plan: StepPlan) -> dict[Kind, ProgramKey]:
        # Nobody waits for the program that computes several: each of them has its own.
        pooled = [evolve(self._buckets.group, kind=POOLED[chunk.pooled]) for chunk in plan.chunks if chunk.pooled]
        self._programs.prepare(pooled)
        groups: dict[Kind, ProgramKey] = {group.kind: group for group in (self._buckets.group, *pooled)}
        return {kind: group for kind, group in groups.items() if group in self._programs.compiled}

    def _start_pooled(self, prefill: Prefill) -> Started:
        wanted = self._prefill_key(prefill)
        key, program = self._programs.choose(wanted)
        self._programs.prepare(self._buckets.wider(wanted))
        forwarded = self.state.gather(key, program, prefill.rows)
        return Started([], None, forwarded.logits, pooled=prefill.rows)

    def _start_prefill(self, prefill: Prefill, first_place: int, places: dict[Sequence, int]) -> Started:
        if prefill.pooled:
            return self._start_pooled(prefill)
        needs = self.drawing.needs(prefill.rows)
        key, program = self._choose(self._prefill_key(prefill), needs)
        forwarded = self.state.gather(key, program, prefill.rows)
        scored = prefill.rows[0] if prefill.scored else None
        if not prefill.draws:
            return Started([], None, forwarded.waited, scored)
        return evolve(self._draw(forwarded, prefill.drawing, needs, first_place, places), scored=scored)

    def _decoding(self, plan: StepPlan) -> list[Row]:
        # A token that is being drawn was left on the device by the last step: the next one begins with no other.
        sources = [self._places[sequence] if sequence.pending else -1 for sequence in plan.decodes]
        return [Row(s, s.num_computed, plan.steps, source) for s, source in zip(plan.decodes, sources, strict=True)]

    def _can_loop(self, plan: StepPlan) -> bool:
        """Whether there is nothing to do several times, or the program for it is there; else it is being compiled."""
        if plan.steps == 1:
            return True
        key = self._loop_key(self._decoding(plan))
        needed = {key, *self._buckets.before(key)}
        self._programs.prepare([*self._buckets.before(key), key])
        return needed <= self._programs.compiled

    def _loop_key(self, rows: list[Row]) -> ProgramKey:
        [key] = self._buckets.loops([self._decode_key(rows)])
        return key

    def _start_loop(self, rows: list[Row], places: dict[Sequence, int]) -> Started:
        key = self._loop_key(rows)
        self._programs.prepare(self._buckets.wider(key))
        looped = self._loop(key, rows)
        places |= {row.sequence: index for index, row in enumerate(looped.rows) if row is not None}
        return Started(looped.rows, looped.drawn, looped.drawn)

    def _loop(self, key: ProgramKey, rows: list[Row]) -> Looped:
        program = self._programs.require(key)
        if not key.reads_view:
            return self.state.loop(key, program, rows)
        [fill] = self._buckets.before(key)
        return self.state.loop_view(key, program, self._programs.require(fill), rows)

    def _at_hand(self, work: Work) -> Work:
        decodes_ready = not work.decodes or work.plan.steps > 1 or self._decodes_at_hand(work.decodes)
        return work.only(decodes=decodes_ready, prefill=self._prefill_at_hand)

    def _decodes_at_hand(self, rows: list[Row]) -> bool:
        return self._is_at_hand(self._decode_key(rows), rows, draws=True)

    def _prefill_at_hand(self, prefill: Prefill) -> bool:
        return self._is_at_hand(self._prefill_key(prefill), prefill.rows, draws=prefill.draws)

    def _is_at_hand(self, wanted: ProgramKey, rows: list[Row], *, draws: bool) -> bool:
        needs = self.drawing.needs(rows)

        def companions(key: ProgramKey) -> list[ProgramKey]:
            return [*self._buckets.before(key), *(self.drawing.keys(needs, key.rows) if draws else [])]

        return self._programs.is_at_hand(wanted, companions)

    def _decode_key(self, rows: list[Row]) -> ProgramKey:
        wanted = self._buckets.decode(len(rows), last_page(rows, self._page_size))
        view = self.state.view
        # Every row of a new view has to be filled: the one that is there serves until it is far too large.
        return view if view is not None and view.covers(wanted) and view.cost <= 2 * wanted.cost else wanted

    def _prefill_key(self, prefill: Prefill) -> ProgramKey:
        pages = last_page(prefill.rows, self._page_size)
        return self._buckets.chunk(prefill.tokens, pages, rows=len(prefill.rows), kind=prefill.kind)

    def _decode(self, rows: list[Row], needs: Needs) -> Forwarded:
        key, program = self._choose(self._decode_key(rows), needs)
        if key.kind != "view":
            return self.state.gather(key, program, rows)
        return self.state.decode_view(key, program, self._programs.require(evolve(key, kind="fill")), rows)

    def _choose(self, wanted: ProgramKey, needs: Needs) -> tuple[ProgramKey, Program]:
        # A larger program makes more rows of logits, and the draw has to fit them.
        companions = [*self._buckets.before(wanted), *self.drawing.keys(needs, wanted.rows)]
        key, program = self._programs.choose(wanted, companions)
        self._programs.prepare([*self._buckets.wider(wanted), *self.drawing.soon(needs, key.rows)])
        return key, program

    def _draw(
        self, forwarded: Forwarded, rows: Rows, needs: Needs, first_place: int, places: dict[Sequence, int]
    ) -> Started:
        for drawing in self.drawing.keys(needs, forwarded.logits.shape[0]):
            self._programs.require(drawing)
        call = DrawCall(rows, needs, first_place)
        drawn, self.state.last = self.drawing.start(self._programs.get, call, forwarded.logits, self.state.last)
        places |= {row.sequence: first_place + index for index, row in enumerate(rows) if row is not None}
        return Started(rows, drawn, forwarded.waited)
