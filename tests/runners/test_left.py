"""What a device process makes of requests whose clients have left is counted once, until its last word about each."""

from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.engine import frames
from atomr_trio.runners._left import MOST, LeftBehind
from atomr_trio.runtime import TokenStream

numbers = st.integers(0, 3)
events = st.lists(
    st.one_of(
        st.tuples(st.just("leaves"), numbers),
        st.tuples(st.just("comes"), numbers, st.integers(0, 3)),
        st.tuples(st.just("is over"), st.lists(st.tuples(numbers, st.integers(0, 2)), unique_by=lambda one: one[0])),
    ),
    max_size=20,
)


@given(events)
def test_each_token_counts_for_who_has_left_it(history):
    left, streams, wanted = LeftBehind(), {}, {}
    open_ones = set()
    for what, *given_ in history:
        match what, given_:
            case "leaves", [number] if number not in streams:
                streams[number], wanted[number] = TokenStream("r"), 0
                streams[number].cancel("left")
                left.add(number, streams[number])
                open_ones.add(number)
            case "comes", [number, tokens]:
                left.take(frames.SequenceOutput(number, [5] * tokens))
                wanted[number] = wanted.get(number, 0) + tokens * (number in open_ones)
            case "is over", [ends]:
                left.forget(frames.Aborted([number for number, _ in ends], [unsent for _, unsent in ends]))
                for number, unsent in ends:
                    wanted[number] = wanted.get(number, 0) + unsent * (number in open_ones)
                    open_ones.discard(number)
    assert {number: stream.late_tokens for number, stream in streams.items()} == {
        number: tokens for number, tokens in wanted.items() if number in streams
    }
    assert len(left) == len(open_ones)


def test_a_process_that_says_nothing_does_not_have_them_pile_up():
    left, stream = LeftBehind(), TokenStream("r")
    for number in range(MOST + 10):
        left.add(number, stream)
    assert len(left) == MOST


def test_an_answer_that_is_not_over_gets_no_text_of_it():
    left, stream = LeftBehind(), TokenStream("r")
    left.add(1, stream)
    left.take(frames.SequenceOutput(1, [5, 6]))
    left.forget(frames.Aborted([1], [2]))
    assert (stream.tokens.token_ids, stream.tokens.text, stream.ended) == ([], "", False)
