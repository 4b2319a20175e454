import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atomr_trio.core import BadRequest
from atomr_trio.text import StopMatcher
from atomr_trio.text.stops import _failure_table

STOPS = st.lists(st.text("ab", min_size=1, max_size=8), max_size=4)
CHUNKS = st.lists(st.text("abc", max_size=6))


def reference(stops, text):
    """Text to show, and the stop string that makes it the whole answer, by looking at every prefix."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            longest = max(found, key=len)
            return text[: end - len(longest)], longest
    return text, None


def may_begin_a_stop(stops, text):
    """The length of the longest end of the text that is the begin, and not the whole, of a stop string."""
    return max((size for stop in stops for size in range(len(stop)) if text.endswith(stop[:size])), default=0)


@given(stops=STOPS, chunks=CHUNKS)
@example(stops=["abcd", "bc"], chunks=["abcd"])
@example(stops=["aab"], chunks=["aa", "ab"])
def test_any_portions_give_what_looking_at_the_whole_gives(stops, chunks):
    matcher = StopMatcher(stops)
    shown, seen = "", ""
    for chunk in chunks:
        text, matched = matcher.push(chunk)
        shown, seen = shown + text, seen + chunk
        expected, found = reference(stops, seen)
        assert matched == matcher.matched == (found is not None)
        assert matcher.found == found
        held = 0 if found else may_begin_a_stop(stops, seen)
        assert shown == expected[: len(expected) - held]
    assert shown + matcher.flush() == reference(stops, seen)[0]


@given(pattern=st.text("ab", min_size=1, max_size=12))
def test_the_table_holds_the_longest_end_that_begins_the_pattern(pattern):
    for at, length in enumerate(_failure_table(pattern)):
        seen = pattern[: at + 1]
        assert length == max(size for size in range(at + 1) if seen.endswith(seen[:size]))


@given(chunks=CHUNKS)
def test_with_no_stops_everything_passes(chunks):
    matcher = StopMatcher(())
    assert [matcher.push(chunk) for chunk in chunks] == [(chunk, False) for chunk in chunks]
    assert matcher.flush() == ""


def test_after_a_match_nothing_comes():
    matcher = StopMatcher(["END"])
    assert matcher.push("one E") == ("one ", False)
    assert matcher.push("ND two") == ("", True)
    assert matcher.push("three") == ("", True)
    assert matcher.flush() == ""


def test_flush_twice():
    matcher = StopMatcher(["END"])
    matcher.push("EN")
    assert matcher.flush() == "EN"
    assert matcher.flush() == ""
    assert matcher.push("D") == ("D", False)


def test_a_long_stop_of_one_letter_costs_no_more_than_the_text():
    # Quadratic would be 10^10 steps here.
    matcher = StopMatcher(["a" * 100_000 + "b"])
    shown = "".join(matcher.push("a" * 1000)[0] for _ in range(300))
    assert len(shown) == 200_000
    assert matcher.push("b") == ("", True)


def test_an_empty_stop_is_refused():
    with pytest.raises(BadRequest) as caught:
        StopMatcher(["a", ""])
    assert caught.value.param == "stop"
