"""What a seed plans for the device processes, one after the other."""

import typing
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.engine.fault_plan import FATAL_FAULTS, DeviceFaultKind, DeviceFaultPlan

KINDS = typing.get_args(DeviceFaultKind)
plans = st.builds(
    DeviceFaultPlan,
    seed=st.integers(),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4).map(tuple),
    times=st.integers(0, 20),
    every=st.integers(1, 30),
    seconds=st.floats(0, 5),
)


@given(plan=plans)
def test_all_happen_each_in_a_process_that_lives_until_then(plan):
    sessions = [plan.session(number) for number in range(plan.times + 2)]
    assert sum(map(len, sessions)) == plan.times
    assert sessions[-1] == ()
    for faults in sessions:
        steps = [fault.step for fault in faults]
        assert steps == sorted(set(steps))
        assert all(after - before < 2 * plan.every for before, after in zip([0, *steps], steps, strict=False))
        # What ends a process is the last that happens to it.
        assert not any(fault.kind in FATAL_FAULTS for fault in faults[:-1])
        assert all(fault.kind in plan.kinds and 0 <= fault.seconds <= plan.seconds for fault in faults)
    # A process is not spared as long as there is something left for the next ones.
    assert all(faults[-1].kind in FATAL_FAULTS for faults, after in pairwise(sessions) if after)


@given(plan=plans)
def test_it_is_a_function_of_its_fields_and_travels_as_data(plan):
    again = msgspec.convert(msgspec.to_builtins(plan), DeviceFaultPlan)
    assert again == plan
    assert [again.session(number) for number in range(5)] == [plan.session(number) for number in range(5)]


@pytest.mark.parametrize("change", [{"kinds": ()}, {"times": -1}, {"every": 0}, {"seconds": -1.0}])
def test_what_cannot_be_planned_is_refused(change):
    with pytest.raises(ValueError, match="faults"):
        DeviceFaultPlan(**{"seed": 1, "kinds": ("kill",), **change})
