"""The scheduler as a state machine under requests that come, go, and fill the pool."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from atomr_trio.core import Backpressure, FinishReason
from atomr_trio.engine.blocks import BlockPool, pages_for
from atomr_trio.engine.frames import SequenceRequest
from atomr_trio.engine.scheduler import Scheduler, SchedulerLimits
from atomr_trio.engine.sequence import Sequence, SequenceState, finish_reason

EOS, STOP = 1, 2


def request(number, prompt=3, max_tokens=4, generated=(), **changes):
    return SequenceRequest(
        id=number,
        prompt_ids=[9] * prompt,
        max_tokens=max_tokens,
        generated=list(generated),
        eos_ids=[EOS],
        stop_ids=[STOP],
        **changes,
    )


def scheduler(pages=64, page_size=4, **limits):
    values = {"max_num_seqs": 4, "max_model_len": 32, "chunk": 8, "chunk_busy": 4, **limits}
    return Scheduler(SchedulerLimits(**values), BlockPool(pages, page_size))


def step(sched, token=9):
    plan = sched.schedule()
    return plan, sched.commit(plan, {s.id: token for s in plan.drawing})


def ids(sequences):
    return [s.id for s in sequences]


class Machine(RuleBasedStateMachine):
    """Random loads; the invariants are the laws of the module."""

    @initialize(
        page_size=st.integers(1, 5),
        max_model_len=st.integers(2, 24),
        spare=st.integers(0, 12),
        max_num_seqs=st.integers(1, 5),
        chunk=st.integers(1, 9),
        chunk_busy=st.integers(1, 9),
        watermark=st.integers(0, 3),
    )
    def begin(self, page_size, max_model_len, spare, **limits):
        pages = pages_for(max_model_len, page_size) + spare
        self.sched = scheduler(pages, page_size, max_model_len=max_model_len, max_waiting=6, **limits)
        self.count = 0
        self.alive: dict[int, Sequence] = {}
        self.ended: dict[int, Sequence] = {}
        self.aborted: set[int] = set()
        self.admitted: list[Sequence] = []

    @rule(data=st.data())
    def add(self, data):
        longest = self.sched.limits.max_model_len - 1
        prompt = data.draw(st.integers(1, longest))
        generated = data.draw(st.integers(0, longest - prompt))
        more = data.draw(st.integers(1, 30))
        wanted = request(self.count, prompt, generated + more, [9] * generated)
        self.count += 1
        try:
            self.alive[wanted.id] = self.sched.add(wanted)
        except Backpressure:
            # More only by those who ran and had to give way.
            assert len(self.sched.waiting) >= self.sched.limits.max_waiting

    @rule(pick=st.integers(0, 40))
    def abort(self, pick):
        gone = self.sched.abort(pick)
        assert (gone is not None) == (pick in self.alive)
        if gone is not None:
            self.aborted.add(pick)
            del self.alive[pick]

    @rule(data=st.data())
    def step(self, data):
        plan = self.sched.schedule()
        self.check(plan)
        # Requests may leave while their step is on the device.
        for gone in data.draw(st.lists(st.sampled_from(sorted(self.alive)), max_size=1) if self.alive else st.just([])):
            self.abort(gone)
        token = st.sampled_from([9, 9, 9, EOS, STOP])
        accepted = self.sched.commit(plan, {s.id: data.draw(token) for s in plan.drawing})
        for one in accepted:
            assert one.sequence.id not in self.aborted
            if one.finish_reason is not None:
                self.ended[one.sequence.id] = self.alive.pop(one.sequence.id)

    @precondition(lambda self: self.alive)
    @rule()
    def lose_everything(self):
        self.sched.restart_all()
        assert not self.sched.running
        assert self.sched.pool.free == self.sched.pool.num_pages

    def check(self, plan):
        sched = self.sched
        limits = sched.limits
        assert bool(plan.sequences) != sched.idle
        assert plan.tokens <= limits.token_budget
        assert len(set(ids(plan.sequences))) == len(plan.sequences) <= limits.max_num_seqs
        assert set(ids(plan.decodes)) <= set(ids(sched.running))
        for sequence in plan.decodes:
            assert sequence.remaining == 1
        if plan.chunk is not None:
            assert plan.chunk.length <= (limits.chunk_busy if plan.decodes else limits.chunk)
        for sequence in plan.sequences:
            assert sequence.state is SequenceState.RUNNING
            # Every token that this step writes has a page.
            assert len(sequence.pages) * sched.pool.page_size >= len(sequence.tokens)

    @invariant()
    def pages_have_one_owner(self):
        owned = [page for s in self.alive.values() for page in s.pages]
        assert len(owned) == len(set(owned))
        assert set(owned) == self.sched.pool.taken
        assert all(not s.pages for s in self.ended.values())

    @invariant()
    def everybody_is_in_one_place_in_order_of_arrival(self):
        running, waiting = self.sched.running, list(self.sched.waiting)
        everybody = running + waiting
        assert {s.id for s in everybody} == set(self.alive)
        assert [s.arrival for s in everybody] == sorted(s.arrival for s in everybody)
        assert all(s.state is SequenceState.RUNNING for s in running)
        assert all(s.state is SequenceState.WAITING and not s.pages for s in waiting)
        assert len(running) <= self.sched.limits.max_num_seqs

    @invariant()
    def nobody_is_over_length(self):
        for sequence in (*self.alive.values(), *self.ended.values()):
            assert len(sequence.tokens) <= self.sched.limits.max_model_len
            assert sequence.generated <= sequence.request.max_tokens

    def teardown(self):
        if not hasattr(self, "sched"):
            return
        work = sum(self.sched.limits.max_model_len * 2 for _ in self.alive) ** 2 + 1
        while not self.sched.idle and work:
            work -= 1
            for one in step(self.sched)[1]:
                if one.finish_reason is not None:
                    self.ended[one.sequence.id] = self.alive.pop(one.sequence.id)
        assert not self.alive, "every request ends"
        assert self.sched.pool.free == self.sched.pool.num_pages
        assert not self.sched.waiting
        assert not self.sched.running


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_a_prompt_is_computed_in_chunks_and_the_last_one_draws():
    sched = scheduler(chunk=4)
    sched.add(request(0, prompt=10))
    chunks = []
    for _ in range(3):
        plan, accepted = step(sched)
        chunks.append((plan.chunk.start, plan.chunk.length, len(accepted)))
    assert chunks == [(0, 4, 0), (4, 4, 0), (8, 2, 1)]


def test_a_long_prompt_goes_in_small_pieces_while_others_decode():
    sched = scheduler(chunk=8, chunk_busy=2)
    sched.add(request(0, prompt=3, max_tokens=9))
    step(sched)
    sched.add(request(1, prompt=9))
    plan, _ = step(sched)
    assert ids(plan.decodes) == [0]
    assert plan.chunk.length == 2


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
    assert plan.chunk is None
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
    sched.restart_all(max_running=2)
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
