"""Page accounting: every page is free or taken, never both, never lost, never twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from atomr_trio.engine.blocks import GARBAGE_PAGE, BlockPool, pages_for


class Pool(RuleBasedStateMachine):
    PAGES = 7

    def __init__(self):
        super().__init__()
        self.pool = BlockPool(self.PAGES, 4)
        self.held: list[list[int]] = []

    @rule(count=st.integers(0, 9))
    def take(self, count):
        before = self.pool.free
        pages = self.pool.take(count)
        if count > before:
            assert pages is None
            assert self.pool.free == before
        else:
            assert len(pages) == count
            self.held.append(pages)

    @rule(which=st.integers(0, 20))
    def give_back(self, which):
        if self.held:
            self.pool.give_back(self.held.pop(which % len(self.held)))

    @invariant()
    def every_page_is_once_somewhere(self):
        held = [page for pages in self.held for page in pages]
        assert len(held) == len(set(held))
        assert set(held) == self.pool.taken
        assert GARBAGE_PAGE not in held
        assert all(1 <= page <= self.PAGES for page in held)
        assert self.pool.free + len(held) == self.PAGES


TestPool = Pool.TestCase


def test_giving_back_twice_is_an_error():
    pool = BlockPool(3, 4)
    pages = pool.take(2)
    pool.give_back(pages)
    with pytest.raises(ValueError, match="not taken"):
        pool.give_back(pages)
    with pytest.raises(ValueError, match="not taken"):
        pool.give_back([GARBAGE_PAGE])


@given(tokens=st.integers(0, 10**6), page_size=st.integers(1, 512))
def test_pages_for_is_just_enough(tokens, page_size):
    pages = pages_for(tokens, page_size)
    assert pages * page_size >= tokens
    assert (pages - 1) * page_size < tokens
