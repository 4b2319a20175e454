"""The faults themselves are sound: each can be planted, and none is there twice."""

import ast
from functools import cache

import pytest

from .fault import ACTOR
from .faults import FAULTS
from .suite import CHECKOUT


def test_there_are_enough_faults_and_each_has_a_name_of_its_own():
    assert len(FAULTS) >= 40
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert len({(fault.file, fault.old, fault.new) for fault in FAULTS}) == len(FAULTS)


@cache
def tree(text):
    return ast.dump(ast.parse(text))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_can_be_planted_and_changes_the_code(fault):
    right = (CHECKOUT / ACTOR / fault.file).read_text()
    assert tree(fault.source(CHECKOUT)) != tree(right)
