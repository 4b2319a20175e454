"""Long prompts take no more of the time than their share, and get it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduler_kit import ids, request, scheduler, step

from atomr_trio.engine.pace import Costs

costs = st.builds(Costs, program=st.floats(0, 20), positions=st.floats(20, 500), share=st.floats(0.5, 3))


@given(costs=costs, decoding=st.integers(1, 3), length=st.integers(8, 60))
def test_pieces_take_their_share_of_the_time_of_those_who_decode(costs, decoding, length):
    sched = scheduler(pages=4000, max_model_len=9000, chunk=8, chunk_busy=3, short=4, pace=costs)
    for number in range(decoding):
        sched.add(request(number, prompt=1, max_tokens=8000))
    step(sched)
    sched.add(request(9, prompt=length))
    assert len(sched.schedule().chunks) == 1
    spent, owed, computed = 0.0, 0.0, 0
    # What is short enough at last waits for nobody.
    while length - computed > 4:
        plan, _ = step(sched)
        assert len(plan.decodes) == decoding
        assert bool(plan.chunks) == (spent <= owed + 1e-6)
        owed += costs.share * costs.decoding(decoding)
        for chunk in plan.chunks:
            assert (chunk.start, chunk.length) == (computed, 3)
            spent += costs.piece(chunk)
            computed += chunk.length
        # Time that no prompt wanted is not kept for the next one.
        owed = min(owed, spent)
    assert step(sched)[0].chunks[0].length == length - computed


def test_a_stream_that_is_computed_again_does_not_wait():
    sched = scheduler(
        pages=99, max_model_len=200, chunk=8, chunk_busy=2, pace=Costs(program=1000, positions=1, share=0.001)
    )
    sched.add(request(0, prompt=1, max_tokens=99))
    step(sched)
    sched.add(request(1, prompt=38, max_tokens=50, generated=[9, 9]))
    assert [[chunk.length for chunk in step(sched)[0].chunks] for _ in range(5)] == [[8]] * 5


def test_streams_of_an_earlier_process_are_computed_before_anybody_decodes():
    sched = scheduler(pages=99, max_model_len=200, chunk=8, chunk_busy=8, burst=8, resume_first=20)
    for number, length in enumerate([5, 12, 30]):
        sched.add(request(number, prompt=length, max_tokens=50, generated=[9]))
    steps = [step(sched)[0] for _ in range(5)]
    assert [[(c.sequence.id, c.length) for c in plan.chunks] for plan in steps] == [
        [(0, 6)],
        [(1, 8)],
        [(1, 5)],
        # This one lacks too much for the others to wait for all of it.
        [(2, 8)],
        [(2, 8)],
    ]
    assert [ids(plan.decodes) for plan in steps] == [[], [], [], [0, 1], [0, 1]]


def test_of_the_streams_of_an_earlier_process_the_shortest_comes_first_within_its_priority():
    sched = scheduler(pages=99, max_model_len=200, chunk=40, burst=8, resume_first=99)
    sched.add(request(0, prompt=3, max_tokens=9, generated=[9], priority=1))
    for number, length in enumerate([30, 12, 20], 1):
        sched.add(request(number, prompt=length, max_tokens=9, generated=[9]))
    sched.add(request(4, prompt=2, max_tokens=9))
    order = [[chunk.sequence.id for chunk in step(sched)[0].chunks] for _ in range(4)]
    assert order == [[2], [3], [1], [4]]


def test_nobody_waits_for_a_stream_of_an_earlier_process_that_there_is_no_room_for():
    sched = scheduler(pages=50, max_model_len=200, max_num_seqs=2, chunk=8, chunk_busy=8, resume_first=20)
    sched.add(request(0, prompt=1, max_tokens=50))
    step(sched)
    sched.add(request(1, prompt=60, max_tokens=5))
    step(sched)
    sched.add(request(2, prompt=10, max_tokens=50, generated=[9]))
    plan = step(sched)[0]
    assert (ids(plan.decodes), ids(chunk.sequence for chunk in plan.chunks)) == ([0], [1])


def test_nobody_waits_where_nobody_decodes():
    sched = scheduler(pages=40, max_model_len=100, chunk=8, pace=Costs(program=1000, positions=1, share=0.001))
    sched.add(request(0, prompt=40))
    assert [[chunk.length for chunk in step(sched)[0].chunks] for _ in range(5)] == [[8]] * 5


@pytest.mark.parametrize("name", ["positions", "share"])
def test_costs_are_numbers_that_can_be_divided_by(name):
    with pytest.raises(ValueError, match=name):
        Costs(**{"program": 1, "positions": 1, "share": 1, name: 0})
