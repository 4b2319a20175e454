"""When a step is several tokens of each sequence, and what becomes of them; see the machine for everything at once."""

import pytest
from scheduler_kit import EOS, ids, request, scheduler, step

from atomr_trio.core import FinishReason


def decoding(count=2, max_tokens=20, page_size=4, pages=64, requests=None, **limits):
    """Sequences whose prompts are computed, and nobody else."""
    sched = scheduler(pages, page_size, decode_steps=4, chunk=16, burst=32, **limits)
    for number in range(count):
        sched.add(request(number, prompt=3, max_tokens=max_tokens, **(requests or {})))
    step(sched)
    assert not sched.waiting
    return sched


def open_one(sched, number=0):
    return next(s for s in sched.running if s.id == number)


def test_who_only_decodes_gets_several_tokens_and_the_pages_for_them():
    sched = decoding()
    plan, accepted = step(sched)
    assert (plan.steps, plan.tokens, ids(plan.decodes)) == (4, 8, [0, 1])
    assert [one.tokens for one in accepted] == [(9, 9, 9, 9)] * 2
    sequence = open_one(sched)
    assert (sequence.length, sequence.num_computed, sequence.pending) == (8, 7, 0)
    # Of 3 + 1 + 4 tokens the last is not computed yet.
    assert len(sequence.pages) == 2


def test_several_tokens_are_within_the_budget():
    sched = scheduler(max_num_seqs=2, chunk=1, decode_steps=4)
    for number in range(2):
        sched.add(request(number, prompt=1, max_tokens=9))
    plan, _ = step(sched)
    assert plan.tokens == 8 <= sched.limits.token_budget


def test_one_step_alone_is_one_token():
    sched = scheduler(decode_steps=1)
    sched.add(request(0, max_tokens=20))
    step(sched)
    assert step(sched)[0].steps == 1


def test_while_a_prompt_is_computed_the_others_get_one_token():
    sched = decoding()
    sched.add(request(9, prompt=5, max_tokens=9))
    plan, _ = step(sched)
    assert (plan.steps, len(plan.chunks)) == (1, 1)
    assert step(sched)[0].steps == 4


def test_while_somebody_waits_the_others_get_one_token():
    sched = decoding(max_num_seqs=2)
    sched.add(request(9))
    assert step(sched)[0].steps == 1
    sched.abort(9)
    assert step(sched)[0].steps == 4


def test_who_comes_with_a_single_token_to_compute_takes_part_at_once():
    sched = decoding()
    sched.add(request(9, prompt=1, max_tokens=9))
    plan, _ = step(sched)
    assert (plan.steps, ids(plan.decodes)) == (4, [0, 1, 9])


@pytest.mark.parametrize("changes", [{"logprobs": True, "top_logprobs": 1}, {"min_tokens": 3}])
def test_while_a_token_takes_more_than_a_plain_draw_there_is_one(changes):
    sched = decoding(requests=changes)
    assert step(sched)[0].steps == 1


def test_after_min_tokens_there_are_several():
    sched = decoding(requests={"min_tokens": 3})
    assert [step(sched)[0].steps for _ in range(3)] == [1, 1, 4]


def test_tokens_on_the_device_count_for_min_tokens():
    sched = decoding(requests={"min_tokens": 3})
    plans = []
    for _ in range(3):
        plans.append(sched.schedule())
        sched.send(plans[-1])
    assert [plan.steps for plan in plans] == [1, 1, 4]


def test_who_reads_its_answer_gets_one_token_at_a_time_and_so_do_all():
    sched = decoding()
    open_one(sched).reads_answer = True
    assert step(sched)[0].steps == 1


def test_who_sits_a_step_out_is_not_made_to_wait_for_several():
    sched = decoding()
    open_one(sched).reads_answer = True
    sched.send(sched.schedule())
    plan = sched.schedule()
    assert (plan.steps, ids(plan.decodes)) == (1, [1])


@pytest.mark.parametrize(("max_tokens", "steps"), [(4, [1]), (5, [4]), (6, [4, 1]), (9, [4, 4]), (10, [4, 4, 1])])
def test_nobody_is_taken_beyond_max_tokens(max_tokens, steps):
    sched = decoding(count=1, max_tokens=max_tokens)
    sequence, found = open_one(sched), []
    while not sched.idle:
        found.append(step(sched)[0].steps)
    assert found[: len(steps)] == steps
    assert sequence.generated == max_tokens


def test_nobody_is_taken_beyond_max_model_len():
    sched = decoding(count=1, max_tokens=99, max_model_len=10)
    sequence = open_one(sched)
    assert [step(sched)[0].steps for _ in range(3)] == [4, 1, 1]
    assert len(sequence.tokens) == 10
    assert sched.idle


def test_one_who_is_near_its_end_holds_all_to_one_token():
    sched = decoding(count=1, max_tokens=3)
    sched.add(request(9, prompt=1, max_tokens=20))
    assert step(sched)[0].steps == 1


def test_without_pages_for_all_tokens_there_is_one_and_nobody_gives_way():
    sched = decoding(count=2, max_model_len=16, page_size=1, pages=16)
    others = sched.pool.take(sched.pool.free - 7)
    plan = sched.schedule()
    # One page each for this token; three more for the next ones there are for one of the two.
    assert (plan.steps, sched.preemptions, sched.pool.free) == (1, 0, 5)
    sched.pool.give_back(others)
    assert sched.schedule().steps == 4


def test_a_plan_of_several_may_be_done_once():
    sched = decoding(count=1)
    plan = sched.schedule()
    once = type(plan)(plan.decodes)
    assert sched.commit(sched.send(once), {0: [9]})[0].tokens == (9,)
    assert step(sched)[0].steps == 4


# --- what comes back


def test_what_was_drawn_after_an_end_is_thrown_away():
    sched = decoding()
    sequence = open_one(sched)
    sent = sched.send(sched.schedule())
    first, second = sched.commit(sent, {0: [9, EOS, 8, 8], 1: [9, 9, 9, 9]})
    assert (first.tokens, first.finish_reason) == ((9, EOS), FinishReason.STOP)
    assert (second.tokens, second.finish_reason) == ((9,) * 4, None)
    assert sequence.tokens[3:] == [9, 9, EOS]
    assert ids(sched.running) == [1]


def test_tokens_up_to_the_last_are_enough():
    sched = decoding(count=1)
    [one] = sched.commit(sched.send(sched.schedule()), {0: [9, EOS]})
    assert one.tokens == (9, EOS)


def test_pages_of_tokens_that_were_thrown_away_are_not_found():
    sched = decoding(count=1, page_size=2)
    sequence = open_one(sched)
    sched.commit(sched.send(sched.schedule()), {0: [EOS, 8, 8, 8]})
    # 3 + 2 tokens, of which the last was not computed as far as it counts.
    assert sched.pool.cached == 2
    assert len(sequence.tokens) == 5
    again = sched.add(request(5, prompt=[*sequence.tokens, 8, 8, 8]))
    step(sched)
    assert again.cached_tokens == 4


def test_pages_of_who_ended_on_the_way_are_fenced_until_the_next_step_is_read():
    sched = decoding(count=2, max_model_len=32)
    first, second = (sched.send(sched.schedule()) for _ in range(2))
    sched.commit(first, {0: [9, 9, EOS, 9], 1: [9] * 4})
    assert sched.pool.fenced == 3
    assert [one.sequence.id for one in sched.commit(second, {0: [9] * 4, 1: [9] * 4})] == [1]
    assert sched.pool.fenced == 0


def test_the_next_step_goes_on_after_all_tokens_of_the_last():
    sched = decoding(count=1)
    sequence = open_one(sched)
    first, second = (sched.send(sched.schedule()) for _ in range(2))
    assert (sequence.pending, sequence.num_computed, sequence.length) == (8, 11, 12)
    sched.commit(first, {0: [3, 4, 5, 6]})
    sched.commit(second, {0: [7, 8, 9, 10]})
    assert sequence.tokens[4:] == [3, 4, 5, 6, 7, 8, 9, 10]
    assert sequence.pending == 0


def test_who_left_gets_nothing_of_what_is_on_the_device():
    sched = decoding()
    sent = sched.send(sched.schedule())
    sched.abort(0)
    assert [one.sequence.id for one in sched.commit(sent, {0: [9] * 4, 1: [9] * 4})] == [1]


def test_a_failed_step_of_several_is_computed_again():
    sched = decoding(count=1)
    sequence = open_one(sched)
    first, second = (sched.send(sched.schedule()) for _ in range(2))
    sched.drop(first)
    assert sched.commit(second, {0: [9] * 4}) == []
    assert (sequence.pending, sequence.num_computed, sequence.generated) == (0, 0, 1)
