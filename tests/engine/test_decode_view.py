"""Whoever decodes finds in its row of the view what its sequence has computed, or the row is filled first."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from atomr_trio.engine.decode_view import ViewRows
from atomr_trio.engine.frames import SequenceRequest
from atomr_trio.engine.packing import Row
from atomr_trio.engine.sequence import Sequence, SequenceState


def sequence(number, computed):
    request = SequenceRequest(id=number, prompt_ids=[1] * (computed + 1), max_tokens=99)
    made = Sequence.of(request, number)
    made.num_computed, made.state = computed, SequenceState.RUNNING
    return made


class Decoding(RuleBasedStateMachine):
    """What is in the rows is tracked here token by token, as the device would have it."""

    @initialize(size=st.integers(1, 5))
    def start(self, size):
        self.rows, self.size = ViewRows(size), size
        self.running, self.content, self.numbers = [], [[] for _ in range(size)], 0

    @rule(computed=st.integers(0, 6))
    def admit(self, computed):
        if len(self.running) < 8:
            self.running.append(sequence(self.numbers, computed))
            self.numbers += 1

    @rule(data=st.data())
    def leave(self, data):
        if self.running:
            gone = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
            gone.state = SequenceState.GONE

    @rule(data=st.data(), computed=st.integers(0, 6))
    def lose_the_pages(self, data, computed):
        """Preempted, admitted again, and its prompt computed again."""
        if self.running:
            victim = data.draw(st.sampled_from(self.running))
            victim.life += 1
            victim.num_computed = computed

    @rule(data=st.data())
    def decode_without_the_view(self, data):
        """In a program that reads pages."""
        for one in data.draw(st.lists(st.sampled_from(self.running), unique=True)) if self.running else []:
            one.num_computed += 1

    @rule(data=st.data())
    def decode(self, data):
        if not self.running:
            return
        chosen = data.draw(st.lists(st.sampled_from(self.running), unique=True, max_size=self.size))
        placed, filled = self.rows.place([Row(one, one.num_computed, 1) for one in chosen])
        assert len(placed) == self.size
        assert sum(row is not None for row in placed) == len(chosen)
        assert {row.sequence for row in placed if row} == set(chosen)
        for index, row in enumerate(placed):
            if row is None:
                assert index not in filled
                continue
            whole = [(row.sequence.id, row.sequence.life, place) for place in range(row.start)]
            if index in filled:
                self.content[index] = whole
            assert self.content[index] == whole
            self.content[index].append((row.sequence.id, row.sequence.life, row.start))
            row.sequence.num_computed += 1

    @invariant()
    def never_more_rows_than_there_are(self):
        if hasattr(self, "rows"):
            assert len(self.rows._held) <= self.size


TestDecoding = Decoding.TestCase


@given(count=st.integers(1, 6), steps=st.integers(1, 9))
def test_nobody_is_filled_twice_who_stays(count, steps):
    rows, running = ViewRows(6), [sequence(number, number) for number in range(count)]
    fills = []
    for _ in range(steps):
        fills += rows.place([Row(one, one.num_computed, 1) for one in running])[1]
        for one in running:
            one.num_computed += 1
    assert sorted(fills) == list(range(count))


def test_the_rows_of_those_who_left_are_taken_first():
    rows, (stays, leaves, comes) = ViewRows(2), (sequence(number, 3) for number in range(3))
    rows.place([Row(stays, 3, 1), Row(leaves, 3, 1)])
    leaves.state = SequenceState.GONE
    placed, filled = rows.place([Row(comes, 3, 1)])
    assert filled == [1]
    assert [row and row.sequence for row in placed] == [None, comes]
    placed, filled = rows.place([Row(comes, 4, 1), Row(stays, 4, 1)])
    assert filled == []
