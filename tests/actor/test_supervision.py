"""The pure half: directives by type, the restart window."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.actor import Directive, RestartWindow, by_type, escalating, one_for_one, stopping


class Base(Exception):
    pass


class Derived(Base):
    pass


def test_the_nearest_base_class_decides():
    decide = by_type({Exception: Directive.STOP, Base: Directive.RESUME}, otherwise=Directive.ESCALATE)
    assert decide(Derived()) is Directive.RESUME
    assert decide(ValueError()) is Directive.STOP
    assert by_type({}, otherwise=Directive.ESCALATE)(ValueError()) is Directive.ESCALATE


def test_factories_decide_what_their_name_says():
    assert stopping().decider(ValueError()) is Directive.STOP
    assert escalating().decider(ValueError()) is Directive.ESCALATE
    assert one_for_one().decider(ValueError()) is Directive.RESTART


@pytest.mark.parametrize("bad", [{"max_restarts": -1}, {"within": 0.0}])
def test_a_senseless_window_is_refused(bad):
    with pytest.raises(ValueError, match="must be"):
        one_for_one(**bad)


@given(
    max_restarts=st.integers(0, 5),
    within=st.floats(0.5, 100),
    gaps=st.lists(st.floats(0, 60), max_size=40),
)
def test_the_window_admits_exactly_what_a_naive_count_admits(max_restarts, within, gaps):
    window, now, admitted = RestartWindow(max_restarts, within), 0.0, []
    for gap in gaps:
        now += gap
        expected = sum(now - at < within for at in admitted) < max_restarts
        assert window.admit(now) is expected
        if expected:
            admitted.append(now)
