"""Who leaves the queue next: the better priority, but never for ever."""

from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.core import Serving
from atomr_trio.runtime.admission import AGEING, Admission


@given(priorities=st.lists(st.integers(-2, 2), max_size=30), leavers=st.sets(st.integers(0, 29)))
def test_the_queue_is_in_order_of_arrival_and_priority(priorities, leavers):
    admission = Admission(Serving(max_concurrent=1))
    assert admission.admit("first", "first")
    for number, priority in enumerate(priorities):
        assert not admission.admit(str(number), number, priority)
    for number in leavers:
        assert admission.release(str(number)) == []
    served, last = [], "first"
    while started := admission.release(last):
        served += started
        last = str(started[0])
    stayed = [number for number in range(len(priorities)) if number not in leavers]
    assert served == sorted(stayed, key=lambda number: (number + AGEING * priorities[number], number))


def test_nobody_is_overtaken_for_ever():
    admission = Admission(Serving(max_concurrent=1))
    admission.admit("last", "last")
    admission.admit("patient", "patient", 1)
    last = "last"
    for overtakers in range(AGEING + 1):
        admission.admit(str(overtakers), str(overtakers))
        (last,) = admission.release(last)
        if last == "patient":
            break
    assert last == "patient"
    assert overtakers == AGEING - 1  # counted from 0: the one that comes then is later than it is better
