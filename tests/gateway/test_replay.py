"""The ring of a kept stream, against a list of everything that was ever written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.gateway.replay import ReplayGone, ReplayRing


def written(numbers):
    return b"".join(b"data: %d\n\n" % number for number in numbers)


def numbered(numbers):
    return b"".join(b"id: %d\ndata: %d\n\n" % (number, number) for number in numbers)


@given(capacity=st.integers(1, 200), data=st.data())
def test_what_is_left_is_the_end_of_what_was_written_and_nothing_unread_is_lost(capacity, data):
    ring, total, read = ReplayRing(capacity), 0, 0
    for _ in range(data.draw(st.integers(1, 20))):
        count = data.draw(st.integers(0, 4))
        ring.append(written(range(total + 1, total + count + 1)))
        total += count
        read = data.draw(st.integers(read, total))
        ring.drop(read)
        assert ring.last == total
        assert 1 <= ring.first <= read + 1
        assert not ring.is_full or ring.first == read + 1
        after = data.draw(st.integers(ring.first - 1, total))
        assert ring.after(after) == numbered(range(after + 1, total + 1))
        if ring.first > 1:
            with pytest.raises(ReplayGone) as caught:
                ring.after(ring.first - 2)
            assert caught.value.first == ring.first
