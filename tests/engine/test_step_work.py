"""Which chunks share a program."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduler_kit import request

from atomr_trio.engine.buckets import ProgramKey
from atomr_trio.engine.sequence import Sequence
from atomr_trio.engine.step_plan import Chunk, StepPlan
from atomr_trio.engine.step_work import Work, prefills_of

PAGE = 4


@st.composite
def chunks(draw):
    found = []
    for number in range(draw(st.integers(0, 9))):
        length = draw(st.integers(1, 12))
        start = draw(st.integers(0, 3)) * PAGE
        more = draw(st.sampled_from([0, 0, 3]))
        pooling = draw(st.sampled_from([None, None, "last", "mean"]))
        found.append(Chunk(Sequence.of(request(number, start + length + more, pooling=pooling), number), start, length))
    return found


def shapes(kind):
    return st.builds(ProgramKey, st.just(kind), st.integers(1, 4), st.integers(1, 8), st.integers(1, 6))


groups = st.fixed_dictionaries({}, optional={kind: shapes(kind) for kind in ("prefill", "ends", "sums")})


def kind_of(chunk, scored):
    """The program that a chunk takes."""
    pooling = chunk.sequence.request.pooling
    if pooling == "mean":
        return "sums"
    if pooling == "last" and chunk.completes:
        return "ends"
    return "scored" if chunk.sequence.id in scored else "prefill"


@given(chunks=chunks(), groups=groups, scored=st.sets(st.integers(0, 8)))
def test_every_chunk_is_computed_once_by_a_program_that_holds_it(chunks, groups, scored):
    prefills = prefills_of(chunks, lambda chunk: chunk.sequence.id in scored, groups, PAGE)
    assert sorted(c.sequence.id for one in prefills for c in one.chunks) == [c.sequence.id for c in chunks]
    for one in prefills:
        assert [(row.sequence, row.start, row.count) for row in one.rows] == [
            (chunk.sequence, chunk.start, chunk.length) for chunk in one.chunks
        ]
        [kind] = {kind_of(chunk, scored) for chunk in one.chunks}
        assert (one.kind, one.scored, one.pooled) == (kind, kind == "scored", kind in ("ends", "sums"))
        drawing = [chunk.completes and chunk.sequence.request.pooling is None for chunk in one.chunks]
        assert [row is not None for row in one.drawing] == drawing
        assert one.draws == any(one.drawing)
        if len(one.chunks) > 1:
            group = groups[kind]
            assert not one.scored
            assert group.rows / 2 < len(one.rows) <= group.rows
            assert one.tokens <= group.chunk
            assert all(row.end <= group.pages * PAGE for row in one.rows)


@given(chunks=chunks(), lacking=st.sets(st.integers(0, 8)), decodes=st.booleans())
def test_what_is_left_out_of_a_step_is_left_out_of_its_plan(chunks, lacking, decodes):
    stream = Sequence.of(request(99), 99)
    work = Work(StepPlan((stream,), tuple(chunks)), [], prefills_of(chunks, lambda _: False, {}, PAGE))
    part = work.only(decodes=decodes, prefill=lambda one: one.chunks[0].sequence.id not in lacking)
    assert part.plan.decodes == ((stream,) if decodes else ())
    assert [c.sequence.id for c in part.plan.chunks] == [c.sequence.id for c in chunks if c.sequence.id not in lacking]
    assert [c for one in part.prefills for c in one.chunks] == list(part.plan.chunks)


@pytest.mark.parametrize(("count", "programs"), [(1, 1), (2, 2), (3, 1), (4, 1), (5, 2), (6, 3), (7, 2)])
def test_a_program_that_would_be_less_than_half_full_is_not_used(count, programs):
    short = [Chunk(Sequence.of(request(number), number), 0, 3) for number in range(count)]
    groups = {"prefill": ProgramKey("prefill", 4, 16, 16)}
    assert len(prefills_of(short, lambda _: False, groups, PAGE)) == programs
