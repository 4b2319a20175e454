"""The journal under generated lives of a context: everything gets to its end, but what kills it each time."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from atomr_trio.core import ExecuteBatch, InferenceError, TokenChunk
from atomr_trio.runtime.journal import Journal
from atomr_trio.runtime.messages import Execute
from atomr_trio.runtime.stream import TokenStream

MAX_DEATHS, WINDOW = 3, 60.0


class Lives(RuleBasedStateMachine):
    """A context that takes up what it is given at once; ``bad`` requests get no token ever."""

    def __init__(self):
        super().__init__()
        self.journal = Journal(MAX_DEATHS, WINDOW)
        self.now = 0.0
        self.open = False
        self.outputs: dict[str, TokenStream] = {}
        self.bad: set[str] = set()
        self.inside: set[str] = set()
        self.convicted: set[str] = set()
        # Of each request: how the context died since it got a token; True: it was killed from outside.
        self.fruitless: dict[str, list[bool]] = {}
        self.bad_ones_get_it_killed = False

    @initialize(killed=st.booleans())
    def begins(self, killed):
        self.bad_ones_get_it_killed = killed

    def take(self, due):
        for execute in due:
            key = execute.output.request_id
            assert self.open
            assert key not in self.inside
            assert not execute.output.ended
            assert execute.batch.generated == tuple(execute.output.tokens.token_ids)
            self.inside.add(key)

    @rule(bad=st.sampled_from([False, False, False, True]))
    def add(self, bad):
        key = f"r{len(self.outputs)}"
        self.outputs[key] = TokenStream(key)
        if bad:
            self.bad.add(key)
        self.take(self.journal.add(Execute(ExecuteBatch(request_id=key, model="m"), self.outputs[key]), self.now))

    @precondition(lambda self: not self.open)
    @rule()
    def opens(self):
        self.open = True
        self.take(self.journal.opened(self.now))

    @precondition(lambda self: self.inside)
    @rule(data=st.data(), ends=st.booleans())
    def tells(self, data, ends):
        key = data.draw(st.sampled_from(sorted(self.inside)))
        if key in self.bad:
            return
        trial = self.journal.on_trial
        self.outputs[key].push(TokenChunk(token_ids=(len(self.outputs[key].tokens.token_ids),)))
        self.fruitless[key] = []
        if ends:
            self.outputs[key].finish()
            self.inside.discard(key)
        if trial is not None and trial.output.request_id == key:
            self.take(self.journal.acquit(trial, self.now))

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def leaves(self, data):
        key = data.draw(st.sampled_from(sorted(self.inside)))
        self.outputs[key].cancel("the client left")
        self.inside.discard(key)
        trial = self.journal.on_trial
        if trial is None:
            self.take(self.journal.due(self.now))

    @precondition(lambda self: self.open)
    @rule(from_outside=st.booleans())
    def dies(self, from_outside):
        self.open = False
        guilty = self.journal.died(tuple(self.inside), self.now, from_outside=from_outside)
        for key in self.inside:
            self.fruitless.setdefault(key, []).append(from_outside)
        for execute in guilty:
            key = execute.output.request_id
            # At least twice with others, and then alone: four times of itself, or six times killed.
            alone = self.fruitless[key][2:]
            assert 2 * len(alone) + alone.count(False) >= 12
            self.convicted.add(key)
            execute.output.fail(InferenceError())
        self.inside.clear()

    @rule(seconds=st.sampled_from([0.5, 10.0, 61.0]))
    def waits(self, seconds):
        self.now += seconds
        self.take(self.journal.due(self.now))

    @invariant()
    def everybody_is_somewhere(self):
        alive = {key for key, output in self.outputs.items() if not output.ended}
        assert {execute.output.request_id for execute in self.journal.in_flight} == alive
        assert self.inside <= alive

    def teardown(self):
        """Whoever is not bad gets to its end, with the bad ones killing the context whenever they are in it."""
        for _ in range(8 * len(self.outputs) + 8):
            if not self.open:
                self.opens()
            if self.inside & self.bad:
                self.dies(self.bad_ones_get_it_killed)
            for key in sorted(self.inside):
                self.outputs[key].push(TokenChunk(token_ids=(0,)))
                self.outputs[key].finish()
                self.inside.discard(key)
                trial = self.journal.on_trial
                self.take(self.journal.due(self.now) if trial is None else self.journal.acquit(trial, self.now))
            self.waits(61.0)
        assert all(output.ended for output in self.outputs.values())
        failed = {key for key, output in self.outputs.items() if output.error is not None}
        # An innocent one only if it was there, without a token, at so many deaths in a row.
        assert failed == self.convicted
        assert {key for key in self.bad if self.outputs[key].cancel_reason is None} <= failed


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
