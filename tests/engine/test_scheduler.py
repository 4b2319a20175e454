"""What the scheduler decides in cases that can be told in a sentence; see the machine for all others."""

from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_kit import EOS, STOP, ids, request, scheduler, step

from atomr_trio.core import Backpressure, FinishReason
from atomr_trio.engine.frames import SequenceRequest
from atomr_trio.engine.sequence import Sequence, finish_reason


def finish(sched, number):
    """Step until a request has ended; return how many steps that took."""
    for steps in count(1):
        step(sched)
        if number not in sched:
            return steps


def test_a_prompt_is_computed_in_chunks_and_the_last_one_draws():
    sched = scheduler(chunk=4)
    sched.add(request(0, prompt=10))
    chunks = []
    for _ in range(3):
        plan, accepted = step(sched)
        [chunk] = plan.chunks
        chunks.append((chunk.start, chunk.length, len(accepted)))
    assert chunks == [(0, 4, 0), (4, 4, 0), (8, 2, 1)]


def test_a_long_prompt_goes_in_small_pieces_while_others_decode():
    sched = scheduler(chunk=8, chunk_busy=2)
    sched.add(request(0, prompt=3, max_tokens=9))
    step(sched)
    sched.add(request(1, prompt=9))
    plan, _ = step(sched)
    assert ids(plan.decodes) == [0]
    assert [chunk.length for chunk in plan.chunks] == [2]


def test_short_prompts_share_a_step_as_long_as_they_fit():
    sched = scheduler(chunk=8, short=8, burst=10)
    for number, length in enumerate([4, 5, 2, 6]):
        sched.add(request(number, prompt=length))
    plan, accepted = step(sched)
    assert [(chunk.sequence.id, chunk.length) for chunk in plan.chunks] == [(0, 4), (1, 5)]
    assert len(accepted) == 2
    assert ids(chunk.sequence for chunk in step(sched)[0].chunks) == [2, 3]


def test_a_long_prompt_goes_first_and_short_ones_beside_it():
    sched = scheduler(chunk=8, chunk_busy=8, burst=12)
    for number, length in enumerate([20, 3, 9]):
        sched.add(request(number, prompt=length))
    assert [(c.start, c.length) for c in step(sched)[0].chunks] == [(0, 8), (0, 3)]
    assert [(c.start, c.length) for c in step(sched)[0].chunks] == [(8, 8)]
    # The last piece of the long one, and no part of the next one: it is finished or left alone.
    assert [(c.start, c.length) for c in step(sched)[0].chunks] == [(16, 4)]


def test_who_shares_a_prompt_of_the_same_step_waits_for_it():
    sched = scheduler(chunk=32, burst=64)
    sched.add(request(0, prompt=range(3, 19)))
    sched.add(request(1, prompt=range(3, 19)))
    plan = sched.schedule()
    assert ids(plan.sequences) == [0]
    sched.commit(sched.send(plan), {0: [9]})
    assert ids(sched.schedule().sequences) == [0, 1]


def test_decodes_of_all_sequences_share_a_step():
    sched = scheduler()
    for number in range(4):
        sched.add(request(number, max_tokens=20))
    for _ in range(4):
        step(sched)
    plan, _ = step(sched)
    assert ids(plan.decodes) == [0, 1, 2, 3]


def test_one_token_prompts_join_the_batch_at_once():
    sched = scheduler()
    for number in range(3):
        sched.add(request(number, prompt=1))
    plan, accepted = step(sched)
    assert ids(plan.decodes) == [0, 1, 2]
    assert not plan.chunks
    assert len(accepted) == 3


def test_the_latest_admitted_gives_way_and_comes_back_first():
    sched = scheduler(pages=8, page_size=4, max_model_len=32)
    for number in range(3):
        sched.add(request(number, prompt=7, max_tokens=20))
    while not sched.preemptions:
        step(sched)
    assert ids(sched.running) == [0, 1]
    assert ids(sched.waiting) == [2]
    assert sched.waiting[0].num_computed == 0
    assert not sched.waiting[0].pages


def test_a_step_that_drove_somebody_off_lets_nobody_in():
    sched = scheduler(pages=8, max_model_len=32, max_num_seqs=2, chunk=32, chunk_busy=32)
    sched.add(request(0, prompt=15, max_tokens=9, priority=-1))
    sched.add(request(1, prompt=16, max_tokens=9, priority=1))
    step(sched)
    step(sched)
    sched.add(request(2, prompt=2))
    plan, _ = step(sched)
    assert (ids(plan.sequences), ids(sched.waiting)) == ([0], [2, 1])
    assert ids(step(sched)[0].sequences) == [0, 2]


def test_the_watermark_keeps_newcomers_out_while_somebody_runs():
    sched = scheduler(pages=8, page_size=4, max_model_len=32, watermark=2)
    for number, prompt in enumerate([11, 7, 6]):  # 3, 2 and 2 pages
        sched.add(request(number, prompt=prompt, max_tokens=9))
    for _ in range(4):
        step(sched)
    assert ids(sched.running) == [0, 1]
    assert ids(sched.waiting) == [2]
    assert sched.pool.free == 2
    while 2 in sched:
        step(sched)
    assert sched.idle


def test_the_watermark_never_keeps_the_only_one_out():
    sched = scheduler(pages=8, page_size=4, max_model_len=32, watermark=8)
    sched.add(request(0, prompt=25))
    plan, _ = step(sched)
    assert ids(plan.sequences) == [0]


def test_a_full_queue_refuses_and_takes_again():
    sched = scheduler(max_waiting=2)
    sched.add(request(0))
    sched.add(request(1))
    with pytest.raises(Backpressure):
        sched.add(request(2))
    assert 2 not in sched
    step(sched)
    sched.add(request(2))


def test_after_running_out_of_memory_fewer_run_at_once():
    sched = scheduler()
    for number in range(4):
        sched.add(request(number, max_tokens=20))
    for _ in range(5):
        step(sched)
    sched.restart_all()
    sched.max_running = 2
    assert ids(sched.waiting) == [0, 1, 2, 3]
    for _ in range(5):
        step(sched)
    assert ids(sched.running) == [0, 1]


def test_a_pool_that_cannot_hold_the_longest_sequence_is_refused():
    with pytest.raises(ValueError, match="too small"):
        scheduler(pages=7, page_size=4, max_model_len=32)


@given(
    tokens=st.lists(st.sampled_from([9, EOS, STOP]), min_size=1, max_size=5),
    max_tokens=st.integers(1, 6),
    ignore_eos=st.booleans(),
    max_model_len=st.integers(4, 9),
)
def test_why_a_sequence_ends(tokens, max_tokens, ignore_eos, max_model_len):
    sequence = Sequence.of(request(0, 3, max_tokens, tokens, ignore_eos=ignore_eos), 0)
    reason = finish_reason(sequence, max_model_len)
    stops = {STOP} if ignore_eos else {STOP, EOS}
    if tokens[-1] in stops:
        assert reason is FinishReason.STOP
    elif len(tokens) >= max_tokens or 3 + len(tokens) >= max_model_len:
        assert reason is FinishReason.LENGTH
    else:
        assert reason is None


def test_a_fresh_prompt_that_ends_in_a_stop_token_is_not_over():
    sequence = Sequence.of(SequenceRequest(id=0, prompt_ids=[STOP], max_tokens=3, stop_ids=[STOP]), 0)
    assert finish_reason(sequence, 32) is None


# --- the prefix cache


def test_a_prompt_that_was_computed_before_is_not_computed_again():
    sched = scheduler()
    first, second = (sched.add(request(number, prompt=range(3, 14))) for number in range(2))
    finish(sched, 0)
    assert (first.cached_tokens, second.cached_tokens) == (0, 8)


@pytest.mark.parametrize(("length", "cached"), [(1, 0), (4, 0), (5, 4), (8, 4), (9, 8), (12, 8)])
def test_of_a_prompt_that_is_cached_as_a_whole_something_is_left_to_compute(length, cached):
    sched = scheduler(chunk=32)
    sched.add(request(0, prompt=range(3, 19)))
    finish(sched, 0)
    again = sched.add(request(1, prompt=range(3, 3 + length)))
    plan, accepted = step(sched)
    assert again.cached_tokens == cached
    assert plan.tokens == length - cached >= 1
    assert len(accepted) == 1


def test_an_answer_is_found_by_the_next_turn():
    sched = scheduler()
    sequence = sched.add(request(0, prompt=3, max_tokens=8))
    finish(sched, 0)
    following = sched.add(request(1, prompt=[*sequence.tokens, 5, 5]))
    step(sched)
    assert following.cached_tokens == 8  # of 3 + 8, the last of which was drawn and never computed


def test_tenants_do_not_find_each_others_prompts():
    sched = scheduler()
    cached = []
    for number, salt in enumerate(["", "a", "b", "a", ""]):
        sequence = sched.add(request(number, prompt=range(3, 14), salt=salt))
        finish(sched, number)
        cached.append(sequence.cached_tokens)
    assert cached == [0, 0, 0, 8, 8]


def test_a_prompt_that_is_scored_is_computed_as_a_whole():
    sched = scheduler()
    sched.add(request(0, prompt=range(3, 14)))
    finish(sched, 0)
    scored = sched.add(request(1, prompt=range(3, 14), prompt_logprobs=True))
    resumed = sched.add(request(2, prompt=range(3, 14), prompt_logprobs=True, generated=[9], max_tokens=5))
    chunks = [chunk for _ in range(3) for chunk in step(sched)[0].chunks]
    begun = {one.id: min(chunk.start for chunk in chunks if chunk.sequence is one) for one in (scored, resumed)}
    assert begun == {1: 0, 2: 8}
    finish(sched, 2)
    # Who goes on with an answer saves nothing: these tokens were computed for it, as far as anybody knows.
    assert (scored.cached_tokens, resumed.cached_tokens) == (0, 0)


def test_what_is_in_doubt_is_computed_again():
    sched = scheduler()
    sched.add(request(0, prompt=range(3, 14), max_tokens=9))
    step(sched)
    step(sched)
    sched.abort(0, forget=True)
    again = sched.add(request(1, prompt=range(3, 14)))
    step(sched)
    assert again.cached_tokens == 0


def test_after_the_pages_are_lost_everything_is_computed_again():
    sched = scheduler()
    sequence = sched.add(request(0, prompt=range(3, 14), max_tokens=9))
    step(sched)
    step(sched)
    sched.restart_all()
    assert step(sched)[0].chunks[0].start == 0
    assert sequence.cached_tokens == 0


def test_who_gave_way_finds_its_own_pages_again():
    sched = scheduler(pages=8, page_size=4, max_model_len=32, chunk=32)
    for number in range(2):
        sched.add(request(number, prompt=12, max_tokens=20))
    while not sched.preemptions:
        step(sched)
    victim = sched.waiting[0]
    computed = len(victim.tokens)
    sched.abort(0)
    plan, _ = step(sched)
    assert victim.num_computed == computed
    assert plan.tokens < computed / 2
    assert victim.cached_tokens == 0, "of its prompt nothing was known when it came"


def test_cached_pages_that_somebody_has_cost_no_room():
    sched = scheduler(pages=10, page_size=4, max_model_len=32, chunk=32)
    for number in range(3):
        sched.add(request(number, prompt=range(3, 26), max_tokens=3))  # 6 pages each, the last of them not full
    for _ in range(2):
        step(sched)
    step_of_the_third = sched.schedule()
    assert ids(step_of_the_third.sequences) == [0, 1, 2]
    assert sched.pool.free == 10 - 5 - 3 - 1  # shared, own, and one for the third token of the first


def test_who_shares_what_is_being_computed_waits_for_it():
    sched = scheduler(chunk=32)
    sched.add(request(0, prompt=range(3, 19)))
    second = sched.add(request(1, prompt=range(3, 19)))
    other = sched.add(request(2, prompt=range(3, 19), salt="other"))
    first_step = sched.send(sched.schedule())
    plan = sched.schedule()
    assert (ids(plan.decodes), plan.chunks) == ([0], ())
    second_step = sched.send(plan)
    sched.commit(first_step, {0: [9]})
    assert ids(sched.schedule().sequences) == [0, 1]
    assert second.cached_tokens == 12
    sched.commit(second_step, {0: [9]})
    assert other.cached_tokens is None


# --- several steps on the device


def test_the_next_step_is_planned_before_the_tokens_of_the_last_are_known():
    sched = scheduler()
    sequence = sched.add(request(0, prompt=3, max_tokens=3))
    first = sched.send(sched.schedule())
    second = sched.send(sched.schedule())
    assert (sequence.pending, sequence.num_computed, sequence.length) == (2, 4, 5)
    third = sched.send(sched.schedule())
    assert not sched.schedule().sequences, "three tokens are all that it can get"
    for number, sent in enumerate((first, second, third)):
        (accepted,) = sched.commit(sent, {0: [9 + number]})
    assert accepted.finish_reason is FinishReason.LENGTH
    assert sequence.tokens[3:] == [9, 10, 11]


def test_pages_are_not_used_again_while_a_step_may_write_them():
    sched = scheduler(pages=8, max_model_len=32, chunk=32, chunk_busy=32)
    sched.add(request(0, prompt=15, max_tokens=9))
    sched.add(request(1, prompt=16, max_tokens=9))
    first = sched.send(sched.schedule())
    second = sched.send(sched.schedule())
    assert sched.commit(first, {0: [EOS]})[0].finish_reason is FinishReason.STOP
    assert (sched.pool.free, sched.pool.fenced) == (0, 4)
    sched.commit(second, {1: [9]})
    assert sched.pool.fenced == 0


def test_who_lacks_a_page_that_is_fenced_sits_out_a_step_and_drives_nobody_off():
    sched = scheduler(pages=8, max_model_len=32, chunk=32, chunk_busy=32)
    sched.add(request(0, prompt=12, max_tokens=9))
    sched.add(request(1, prompt=15, max_tokens=9))
    first = sched.send(sched.schedule())
    second = sched.send(sched.schedule())
    sched.commit(first, {0: [9]})
    third = sched.send(sched.schedule())
    sched.abort(0)
    sched.commit(second, {1: [9]})
    assert (sched.pool.free, sched.pool.fenced) == (0, 4)
    plan = sched.schedule()
    assert (plan.sequences, sched.preemptions, ids(sched.running)) == ((), 0, [1])
    sched.commit(third, {1: [9]})
    assert ids(sched.schedule().decodes) == [1]


def test_a_failed_step_is_computed_again():
    sched = scheduler()
    sequence = sched.add(request(0, prompt=3))
    first, second = (sched.send(sched.schedule()) for _ in range(2))
    sched.drop(first)
    assert sched.commit(second, {0: [9]}) == []
    assert sequence.num_computed == 0
    assert step(sched)[1][0].sequence is sequence


def test_steps_are_booked_once_and_in_order():
    sched = scheduler()
    sched.add(request(0))
    first, second = (sched.send(sched.schedule()) for _ in range(2))
    for book in (lambda: sched.commit(second, {}), lambda: sched.drop(second)):
        with pytest.raises(ValueError, match="step 2 is not the oldest"):
            book()
    sched.commit(first, {0: [9]})
    with pytest.raises(ValueError, match="step 1 is not the oldest"):
        sched.commit(first, {0: [9]})
    sched.restart_all()
    with pytest.raises(ValueError, match="step 2 is not the oldest"):
        sched.commit(second, {0: [9]})


# --- who comes first


def admissions(sched, requests):
    """Add a request a step, if there is room, until all have ended; return them in order of their first admission."""
    requests, admitted = list(requests), []
    while requests or not sched.idle:
        try:
            while requests:
                sched.add(requests[0])
                del requests[0]
        except Backpressure:
            pass
        step(sched)
        admitted += [s for s in sched.running if s not in admitted]
    return admitted


@settings(max_examples=60, deadline=None)
@given(
    asked=st.lists(st.tuples(st.integers(-3, 3), st.integers(2, 9), st.integers(2, 6)), min_size=2, max_size=40),
    ageing=st.integers(0, 6),
    places=st.integers(1, 3),
)
def test_nobody_is_overtaken_by_more_later_arrivals_than_its_priority_is_worth(asked, ageing, places):
    sched = scheduler(pages=12, max_num_seqs=places, ageing=ageing, max_waiting=9)
    requests = [request(n, prompt, new, priority=p) for n, (p, prompt, new) in enumerate(asked)]
    admitted = admissions(sched, requests)
    for place, one in enumerate(admitted):
        for earlier in admitted[:place]:
            lead = one.request.priority - earlier.request.priority
            assert earlier.arrival < one.arrival + max(0, ageing * lead)
    best = min(p for p, _, _ in asked)
    for place, one in enumerate(admitted):
        overtakers = sum(earlier.arrival > one.arrival for earlier in admitted[:place])
        assert overtakers <= ageing * (one.request.priority - best)


def test_an_endless_stream_of_better_requests_does_not_starve_a_class():
    sched = scheduler(max_num_seqs=1, ageing=5, max_waiting=3)
    sched.add(request(0, priority=2))
    later = 0
    while 0 in sched:
        while len(sched.waiting) < 3:
            later += 1
            sched.add(request(later, priority=0))
        step(sched)
    assert later <= 2 * 5 + 3 + 1


def test_the_better_one_is_admitted_first_and_gives_way_last():
    sched = scheduler(pages=8, page_size=4, max_model_len=32)
    for number, priority in enumerate([0, 1, -1]):
        sched.add(request(number, prompt=7, max_tokens=20, priority=priority))
    assert ids(sched.waiting) == [2, 0, 1]
    while not sched.preemptions:
        step(sched)
    assert ids(sched.running) == [2, 0]
    assert ids(sched.waiting) == [1]


def test_a_prompt_to_embed_that_fills_the_context_is_a_prompt_to_compute():
    """Those who decode beside it get one token a step, for it is not to wait for several."""
    sched = scheduler(max_model_len=16, chunk=4, chunk_busy=4, decode_steps=3)
    sched.add(request(0, 2, 12))
    step(sched)
    embedded = sched.add(request(1, 16, pooling="last"))
    while embedded.id in sched:
        plan, accepted = step(sched)
        assert plan.steps == 1
    [(over, tokens, reason)] = [(a.sequence, a.tokens, a.finish_reason) for a in accepted if a.sequence is embedded]
    assert (over, tokens, reason) == (embedded, (), FinishReason.STOP)


def test_a_prompt_of_one_token_is_embedded_by_a_chunk():
    sched = scheduler()
    sched.add(request(0, 1, pooling="mean"))
    plan, [accepted] = step(sched)
    assert (plan.decodes, [chunk.length for chunk in plan.chunks], plan.drawing) == ((), [1], ())
    assert accepted.finish_reason is FinishReason.STOP
    assert sched.idle
