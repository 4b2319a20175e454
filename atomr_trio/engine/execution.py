"""Runs planned steps on the device: chooses programs and dispatches them.

A step is prepared (which programs does it take, and are they there?), started, and read by `readout.collect`. The next
one may be started before the last one is read: the tokens that it begins with are on the device.
"""

from collections.abc import Callable

from attrs import define, evolve, field, frozen

from .blocks import pages_for
from .buckets import Buckets, ProgramKey
from .compile_cache import CompileCache
from .device_state import DeviceState, Forwarded, Program
from .drawing import DrawCall, Drawing, Needs
from .packing import Row
from .readout import Started
from .scheduler import Chunk, StepPlan
from .sequence import Sequence

__all__ = ["StepExecutor", "Work"]


@frozen
class Work:
    """A step that can be started.

    Args:
        plan: what it computes: the plan that was asked for, or a part of it.
        decodes: a row for each of ``plan.decodes``.
        chunk: the row of ``plan.chunk``, if there is one.
        score: the chunk's own tokens get log probabilities.
    """

    plan: StepPlan
    decodes: list[Row]
    chunk: list[Row]
    score: bool = False


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

    def warm_up(self, on_progress: Callable[[int, int], None]) -> None:
        """Compile all shapes now; ``on_progress`` is called with (programs done, programs in all)."""
        self._programs.warm_up(self._buckets.everything(), on_progress)

    def prepare(self, plan: StepPlan, *, score: bool = False, wait_for_programs: bool = True) -> Work:
        """Say how a plan is computed. Call it before the plan counts as sent.

        Args:
            plan: what to compute.
            score: the chunk's own tokens get log probabilities.
            wait_for_programs: take all of it, even if a program has to be compiled first. Otherwise what lacks its
                program is left out, and the program is being compiled.
        """
        decodes = [self._decoding(sequence) for sequence in plan.decodes]
        work = Work(plan, decodes, [] if plan.chunk is None else [_row(plan.chunk)], score)
        return work if wait_for_programs else self._at_hand(work)

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
        if work.decodes:
            needs = self.drawing.needs(work.decodes)
            started.append(self._draw(self._decode(work.decodes, needs), needs, 0, places))
        if work.chunk:
            started.append(self._start_chunk(work, places))
        self._places = places
        return started

    def _start_chunk(self, work: Work, places: dict[Sequence, int]) -> Started:
        needs = self.drawing.needs(work.chunk)
        forwarded = self._prefill(work, needs)
        if work.plan.chunk is None or not work.plan.chunk.completes:
            return Started(forwarded.rows, None, forwarded.waited, work.score)
        # Behind all that decode.
        return self._draw(forwarded, needs, len(self.state.last) - 1, places, scored=work.score)

    def _decoding(self, sequence: Sequence) -> Row:
        # A token that is being drawn was left on the device by the last step: no other one is unread.
        source = self._places[sequence] if sequence.pending else -1
        return Row(sequence, sequence.num_computed, 1, source)

    def _at_hand(self, work: Work) -> Work:
        chunk = work.plan.chunk
        decodes_ready = not work.decodes or self._is_at_hand(self._decode_key(work.decodes), work.decodes, draws=True)
        chunk_ready = chunk is None or self._is_at_hand(self._chunk_key(work), work.chunk, draws=chunk.completes)
        plan = StepPlan(work.plan.decodes if decodes_ready else (), chunk if chunk_ready else None)
        return Work(plan, work.decodes if decodes_ready else [], work.chunk if chunk_ready else [], work.score)

    def _is_at_hand(self, wanted: ProgramKey, rows: list[Row], *, draws: bool) -> bool:
        needs = self.drawing.needs(rows)

        def companions(key: ProgramKey) -> list[ProgramKey]:
            return [*self._buckets.before(key), *(self.drawing.keys(needs, key.rows) if draws else [])]

        return self._programs.is_at_hand(wanted, companions)

    def _decode_key(self, rows: list[Row]) -> ProgramKey:
        wanted = self._buckets.decode(len(rows), self._pages(rows))
        view = self.state.view
        # Every row of a new view has to be filled: the one that is there serves until it is far too large.
        return view if view is not None and view.covers(wanted) and view.cost <= 2 * wanted.cost else wanted

    def _chunk_key(self, work: Work) -> ProgramKey:
        return self._buckets.chunk(work.chunk[0].count, self._pages(work.chunk), scored=work.score)

    def _pages(self, rows: list[Row]) -> int:
        return pages_for(max(row.end for row in rows), self._page_size)

    def _decode(self, rows: list[Row], needs: Needs) -> Forwarded:
        key, program = self._choose(self._decode_key(rows), needs)
        if key.kind != "view":
            return self.state.gather(key, program, rows)
        return self.state.decode_view(key, program, self._programs.require(evolve(key, kind="fill")), rows)

    def _prefill(self, work: Work, needs: Needs) -> Forwarded:
        key, program = self._choose(self._chunk_key(work), needs)
        return self.state.gather(key, program, work.chunk)

    def _choose(self, wanted: ProgramKey, needs: Needs) -> tuple[ProgramKey, Program]:
        # A larger program makes more rows of logits, and the draw has to fit them.
        companions = [*self._buckets.before(wanted), *self.drawing.keys(needs, wanted.rows)]
        key, program = self._programs.choose(wanted, companions)
        self._programs.prepare([*self._buckets.wider(wanted), *self.drawing.soon(needs, key.rows)])
        return key, program

    def _draw(
        self,
        forwarded: Forwarded,
        needs: Needs,
        first_place: int,
        places: dict[Sequence, int],
        *,
        scored: bool = False,
    ) -> Started:
        for drawing in self.drawing.keys(needs, forwarded.logits.shape[0]):
            self._programs.require(drawing)
        call = DrawCall(forwarded.rows, needs, first_place)
        drawn, self.state.last = self.drawing.start(self._programs.get, call, forwarded.logits, self.state.last)
        places |= {row.sequence: first_place + index for index, row in enumerate(forwarded.rows) if row is not None}
        return Started(forwarded.rows, drawn, forwarded.waited, scored)


def _row(chunk: Chunk) -> Row:
    return Row(chunk.sequence, chunk.start, chunk.length)
