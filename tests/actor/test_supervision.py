"""The pure half: directives by type, the restart window."""

import pytest

from atomr_trio.actor import Directive, escalating, one_for_one, stopping


def test_factories_decide_what_their_name_says():
    assert stopping().decider(ValueError()) is Directive.STOP
    assert escalating().decider(ValueError()) is Directive.ESCALATE
    assert one_for_one().decider(ValueError()) is Directive.RESTART


@pytest.mark.parametrize("bad", [{"max_restarts": -1}, {"within": 0.0}])
def test_a_senseless_window_is_refused(bad):
    with pytest.raises(ValueError, match="must be"):
        one_for_one(**bad)
