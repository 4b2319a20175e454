"""The scheduler as a state machine under requests that come, go, share prompts, and fill the pool, with up to three
steps on a simulated device at once. Every answer is the one that its request would get alone."""

from collections import Counter

from attrs import evolve
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from scheduler_kit import Device, entry, expected, ids, request, scheduler

from atomr_trio.core import Backpressure, FinishReason
from atomr_trio.engine.blocks import pages_for
from atomr_trio.engine.pace import Costs
from atomr_trio.engine.scheduler import StepPlan
from atomr_trio.engine.sequence import Sequence, SequenceState, is_exhausted

# What prompts begin with: few, so that many of them share their first pages.
BEGINNINGS = [[4] * 24, [4, 5] * 12, [4, 4, 4, 4, 6, 7] * 4]


paces = st.builds(Costs, program=st.floats(0, 20), positions=st.floats(1, 50), share=st.floats(0.1, 2))


class Machine(RuleBasedStateMachine):
    """Random loads; the invariants are the laws of the module."""

    @initialize(
        page_size=st.integers(1, 5),
        max_model_len=st.integers(2, 24),
        spare=st.integers(0, 12),
        depth=st.integers(1, 3),
        max_num_seqs=st.integers(1, 5),
        chunk=st.integers(1, 9),
        chunk_busy=st.integers(1, 9),
        pace=st.none()
        | st.builds(Costs, program=st.floats(0, 20), positions=st.floats(1, 50), share=st.floats(0.1, 2)),
        short=st.integers(0, 9),
        resume_first=st.integers(0, 20),
        burst=st.integers(0, 20),
        decode_steps=st.integers(1, 5),
        plain=st.booleans(),
        watermark=st.integers(0, 3),
        ageing=st.integers(0, 4),
    )
    def begin(self, page_size, max_model_len, spare, depth, plain, **limits):
        pages = pages_for(max_model_len, page_size) + spare
        self.sched = scheduler(pages, page_size, max_model_len=max_model_len, max_waiting=6, **limits)
        self.device = Device(page_size)
        self.depth, self.plain = depth, plain
        self.sent = []
        self.count = 0
        self.alive: dict[int, Sequence] = {}
        self.ended: dict[int, Sequence] = {}

    # --- what may happen

    @rule(data=st.data())
    def add(self, data):
        pooling = data.draw(st.sampled_from([None, None, None, "last", "mean"]))
        # Nothing comes after a prompt that is embedded.
        longest = self.sched.limits.max_model_len - (pooling is None)
        length = data.draw(st.integers(1, longest))
        own = data.draw(st.lists(st.integers(3, 8), max_size=min(4, length)))
        prompt = data.draw(st.sampled_from(BEGINNINGS))[: length - len(own)] + own
        generated = data.draw(st.lists(st.integers(3, 8), max_size=0 if pooling else min(4, longest - length)))
        wanted = request(
            self.count,
            prompt,
            len(generated) + data.draw(st.integers(1, 30)),
            generated,
            ignore_eos=True,
            priority=data.draw(st.integers(-2, 2)),
            salt=data.draw(st.sampled_from(["", "tenant"])),
            prompt_logprobs=pooling is None and data.draw(st.integers(0, 4)) == 0,
            pooling=pooling,
            min_tokens=0 if self.plain else data.draw(st.sampled_from([0, 0, 5])),
        )
        self.count += 1
        try:
            added = self.alive[wanted.id] = self.sched.add(wanted)
            added.reads_answer = not self.plain and data.draw(st.integers(0, 3)) == 0
        except Backpressure:
            # More only by those who ran and had to give way.
            assert len(self.sched.waiting) >= self.sched.limits.max_waiting

    @rule(pick=st.integers(0, 40), forget=st.booleans())
    def abort(self, pick, forget):
        gone = self.sched.abort(pick, forget=forget)
        assert (gone is not None) == (pick in self.alive)
        self.alive.pop(pick, None)

    @rule(part=st.sampled_from(["all", "all", "all", "once", "decodes", "chunks"]), left_out=st.sets(st.integers(0, 3)))
    def send(self, part, left_out=frozenset()):
        if len(self.sent) == self.depth:
            return
        plan = self.sched.schedule()
        self.check(plan)
        # What lacks its program is left out, and proposed again.
        if part == "once":
            plan = evolve(plan, steps=1)
        elif part == "decodes":
            plan = StepPlan(plan.decodes)
        elif part == "chunks":
            plan = StepPlan((), tuple(c for number, c in enumerate(plan.chunks) if number not in left_out))
        if plan.sequences:
            self.sent.append(self.sched.send(plan))
            self.device.send(plan, self.sent[-1])

    @rule()
    def execute(self):
        self.device.execute()

    @precondition(lambda self: getattr(self, "sent", None))
    @rule()
    def commit(self):
        for one in self.sched.commit(self.sent.pop(0), self.device.take()):
            sequence = one.sequence
            assert one.tokens == tuple(sequence.tokens[len(sequence.tokens) - len(one.tokens) :])
            if sequence.generated == len(sequence.request.generated) + len(one.tokens):
                self.check_first(sequence)
            if not sequence.draws:
                self.check_pooled(one)
            if one.finish_reason is not None:
                self.ended[sequence.id] = self.alive.pop(sequence.id)

    @rule(steps=st.integers(1, 6))
    def go_on(self, steps):
        """Until most prompts are computed, and there is nothing to do but to decode."""
        for _ in range(steps):
            self.send("all")
            if len(self.sent) == self.depth:
                self.commit()

    @precondition(lambda self: getattr(self, "sent", None))
    @rule()
    def lose_a_step(self):
        self.sched.drop(self.sent.pop(0))
        self.device.lose_oldest()

    @precondition(lambda self: getattr(self, "alive", None))
    @rule(max_running=st.none() | st.integers(1, 5))
    def lose_everything(self, max_running):
        self.sched.restart_all()
        self.sched.max_running = min(max_running or 5, self.sched.limits.max_num_seqs)
        self.sent.clear()
        self.device.lose_everything()
        assert not self.sched.running
        assert self.sched.pool.free == self.sched.pool.num_pages
        assert self.sched.pool.cached == 0

    # --- what must hold

    def check(self, plan):
        sched, limits = self.sched, self.sched.limits
        assert plan.sequences or self.sent or sched.idle
        assert plan.tokens <= limits.token_budget
        assert len(set(ids(plan.sequences))) == len(plan.sequences) <= limits.max_num_seqs
        assert set(ids(plan.decodes)) <= set(ids(sched.running))
        assert all(sequence.remaining == 1 and sequence.draws for sequence in plan.decodes)
        assert not any(sequence.reads_answer and sequence.pending for sequence in plan.decodes)
        self.check_steps(plan)
        self.check_chunks(plan)
        for sequence in plan.sequences:
            assert sequence.state is SequenceState.RUNNING
            self.check_pages(sequence, plan.steps)

    def check_steps(self, plan):
        sched, limits = self.sched, self.sched.limits
        longest = limits.max_model_len
        assert plan.steps in {1, limits.decode_steps}
        if plan.steps > 1:
            assert plan.decodes
            assert not plan.chunks
            assert not sched.waiting
            assert not any(sequence.reads_answer for sequence in sched.running if not is_exhausted(sequence, longest))
            for sequence in plan.decodes:
                assert sequence.generated + sequence.pending + plan.steps <= sequence.request.max_tokens
                assert sequence.length + plan.steps <= longest
                assert sequence.generated + sequence.pending >= sequence.request.min_tokens

    def check_chunks(self, plan):
        limits = self.sched.limits
        # Who is let in with a single token to compute is no stream that could stall.
        busy = any(s.pending or s.generated > len(s.request.generated) for s in plan.decodes)
        for number, chunk in enumerate(plan.chunks):
            # One that has begun to answer is one of those that are to be spared.
            short = chunk.sequence.remaining <= limits.short or chunk.sequence.generated > 0
            most = limits.chunk_busy if busy else max(limits.chunk, limits.chunk_busy if plan.decodes else 0)
            assert 1 <= chunk.length <= (max(most, limits.chunk) if short else most)
            assert chunk.start == chunk.sequence.num_computed
            assert chunk.completes or not number
        if len(plan.chunks) > 1:
            assert sum(chunk.length for chunk in plan.chunks) <= limits.burst

    def check_pages(self, sequence, steps):
        """Every token that the step writes has a page that is its own."""
        size = self.sched.pool.page_size
        assert len(sequence.pages) * size >= sequence.length + steps - 1
        written = sequence.pages[sequence.num_computed // size :]
        assert all(self.sched.pool.holders(page) == 1 for page in written)
        assert not set(written) & self.device.written_by_others(sequence)
        if sequence.needs_prompt_computed and not sequence.pending:
            # Nothing was taken from the cache: all of it goes through the model.
            computed = self.device.computed.get((sequence.id, sequence.life), set())
            on_it = {
                p
                for _, work in self.device.on_it
                for r in work
                if r.sequence is sequence
                for p in range(r.start, r.end)
            }
            assert set(range(sequence.num_computed)) <= computed | on_it

    def check_pooled(self, one):
        """It ended with its prompt, the last token of which saw all others."""
        wanted = one.sequence.request
        assert (one.tokens, one.finish_reason) == ((), FinishReason.STOP)
        entries = [entry(wanted.salt, wanted.prompt_ids[:end]) for end in range(1, len(wanted.prompt_ids) + 1)]
        assert self.device.pooled[wanted.id, one.sequence.life - 1] == entries

    def check_first(self, sequence):
        most = (len(sequence.request.prompt_ids) + len(sequence.request.generated) - 1) // self.sched.pool.page_size
        assert 0 <= sequence.cached_tokens <= min(most * self.sched.pool.page_size, sequence.prompt_len)
        scored = sequence.request.prompt_logprobs and not sequence.request.generated
        if scored or sequence.request.pooling == "mean":
            assert sequence.cached_tokens == 0

    @invariant()
    def pages_are_counted_right(self):
        pool = self.sched.pool
        holders = Counter(page for s in self.alive.values() for page in s.pages)
        assert set(holders) == pool.taken
        assert all(pool.holders(page) == count for page, count in holders.items())
        assert all(len(set(s.pages)) == len(s.pages) for s in self.alive.values())
        assert all(not s.pages for s in self.ended.values())
        assert pool.free + pool.fenced + len(holders) == pool.num_pages
        if not self.sent:
            assert pool.fenced == 0

    @invariant()
    def what_is_drawn_for_whom_is_known(self):
        rows = [row for _, work in self.device.on_it for row in work]
        for sequence in self.alive.values():
            own = [row.draws for row in rows if row.sequence is sequence and row.life == sequence.life]
            assert self.sched.drawing(sequence.id) == sum(own)
        assert all(number in self.alive or not self.sched.drawing(number) for number in (-1, *self.ended))

    @invariant()
    def what_is_found_is_what_was_written(self):
        size, pool = self.sched.pool.page_size, self.sched.pool
        for sequence in self.alive.values():
            for number, page in enumerate(pool.find(sequence.chain)):
                for offset in range(size):
                    tokens = sequence.tokens[: number * size + offset + 1]
                    assert self.device.slots[page, offset] == entry(sequence.request.salt, tokens)

    @invariant()
    def everybody_is_in_one_place_in_order_of_rank(self):
        running, waiting = self.sched.running, self.sched.waiting
        assert {s.id for s in running + waiting} == set(self.alive)
        assert len(running) + len(waiting) == len(self.alive)
        for line in (running, waiting):
            assert [self.sched.rank(s) for s in line] == sorted(map(self.sched.rank, line))
        assert all(s.state is SequenceState.RUNNING for s in running)
        assert all(s.state is SequenceState.WAITING and not s.pages and not s.pending for s in waiting)
        assert len(running) <= self.sched.limits.max_num_seqs

    @invariant()
    def nobody_is_over_length(self):
        for sequence in (*self.alive.values(), *self.ended.values()):
            assert len(sequence.tokens) <= self.sched.limits.max_model_len
            assert sequence.generated <= sequence.request.max_tokens

    def teardown(self):
        if not hasattr(self, "sched"):
            return
        work = sum(self.sched.limits.max_model_len * 3 for _ in self.alive) ** 2 + 10
        while (not self.sched.idle or self.sent) and work:
            work -= 1
            self.send("all")
            if self.sent and (len(self.sent) == self.depth or work % 2):
                self.commit()
        assert not self.alive, "every request ends"
        assert self.sched.pool.free == self.sched.pool.num_pages
        assert not self.sched.waiting
        assert not self.sched.running
        for sequence in self.ended.values():
            assert sequence.tokens == expected(sequence.request, self.sched.limits.max_model_len)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=120, stateful_step_count=50, deadline=None)
