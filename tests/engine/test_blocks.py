"""Page accounting: every page is held, free or fenced; never two of these, never lost, never handed out too early."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from atomr_trio.engine.blocks import GARBAGE_PAGE, BlockPool, pages_for


class Pool(RuleBasedStateMachine):
    """Holders that take, share, and let go, some of them with a step on the device."""

    PAGES = 7

    def __init__(self):
        super().__init__()
        self.pool = BlockPool(self.PAGES, 4)
        self.held: list[list[int]] = []
        self.contents: dict[bytes, int] = {}
        self.fences: Counter[int] = Counter()
        self.done = 0
        self.names = 0

    @rule(count=st.integers(0, 9))
    def take(self, count):
        before = self.pool.free
        pages = self.pool.take(count)
        if count > before:
            assert pages is None
            assert self.pool.free == before
            return
        assert len(pages) == count
        # Nobody has them, and nothing on the device writes them.
        assert not set(pages) & {page for pages in self.held for page in pages}
        assert all(self.fences[page] <= self.done for page in pages)
        self.contents = {name: page for name, page in self.contents.items() if page not in pages}
        self.held.append(pages)

    @rule(which=st.integers(0, 20))
    def remember(self, which):
        pages = self.held[which % len(self.held)] if self.held else []
        for page in pages:
            if page not in self.contents.values():
                self.names += 1
                self.contents[str(self.names).encode()] = page
                self.pool.remember(page, str(self.names).encode())

    @rule(data=st.data())
    def share(self, data):
        names = data.draw(
            st.lists(st.sampled_from(sorted(self.contents)), unique=True) if self.contents else st.just([])
        )
        found = self.pool.find(names)
        assert found == [self.contents[name] for name in names]
        drop, before = self.pool.free_among(found), self.pool.free
        self.pool.share(found)
        assert self.pool.free == before - drop
        self.held.append(found)

    @rule(which=st.integers(0, 20), ahead=st.integers(0, 3))
    def give_back(self, which, ahead):
        if self.held:
            pages = self.held.pop(which % len(self.held))
            after = self.done + ahead if ahead else 0
            self.pool.give_back(pages, after)
            for page in pages:
                self.fences[page] = max(self.fences[page], after)

    @rule(step=st.integers(0, 3))
    def release(self, step):
        self.done += step
        self.pool.release_up_to(self.done)
        self.pool.release_up_to(self.done - 1)  # late news change nothing

    @rule(which=st.integers(0, 20))
    def forget(self, which):
        if self.held:
            pages = self.held[which % len(self.held)]
            self.pool.forget(pages)
            self.contents = {name: page for name, page in self.contents.items() if page not in pages}

    @rule()
    def forget_all(self):
        self.pool.forget_all()
        self.contents.clear()

    @invariant()
    def every_page_is_somewhere(self):
        holders = Counter(page for pages in self.held for page in pages)
        assert set(holders) == self.pool.taken
        assert all(self.pool.holders(page) == holders[page] for page in range(self.PAGES + 1))
        assert GARBAGE_PAGE not in holders
        assert all(1 <= page <= self.PAGES for page in holders)
        fenced = [page for page in range(1, 8) if self.fences[page] > self.done and not holders[page]]
        assert self.pool.fenced == len(fenced)
        assert self.pool.free + len(fenced) + len(holders) == self.PAGES

    @invariant()
    def finds_what_is_cached(self):
        assert self.pool.cached == len(self.contents)
        for name, page in self.contents.items():
            assert self.pool.find([name]) == [page]


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def test_giving_back_twice_is_an_error():
    pool = BlockPool(3, 4)
    pages = pool.take(2)
    pool.give_back(pages)
    with pytest.raises(ValueError, match="not taken"):
        pool.give_back(pages)
    with pytest.raises(ValueError, match="not taken"):
        pool.give_back([GARBAGE_PAGE])


def test_what_nobody_has_cannot_be_remembered():
    pool = BlockPool(3, 4)
    with pytest.raises(ValueError, match="not taken"):
        pool.remember(1, b"x")


@given(lengths=st.lists(st.integers(1, 4), min_size=1, max_size=5), data=st.data())
def test_the_least_recently_used_is_forgotten_first_and_of_one_prompt_the_end(lengths, data):
    pool = BlockPool(sum(lengths), 4)
    owners = [pool.take(length) for length in lengths]
    for pages in owners:
        for page in pages:
            pool.remember(page, bytes([page]))
    for which in data.draw(st.permutations(range(len(owners)))):
        pool.give_back(owners[which])
        owners.append(owners[which])
    expected = [page for pages in owners[len(lengths) :] for page in reversed(pages)]
    # Used again: now they are the most recent.
    for which in data.draw(st.lists(st.integers(0, len(lengths) - 1), max_size=3)):
        again = pool.find(bytes([page]) for page in owners[which])
        assert again == owners[which]
        pool.share(again)
        pool.give_back(again)
        expected = [page for page in expected if page not in again] + again[::-1]
    evicted = []
    for _ in range(pool.num_pages):
        known = {page for page in expected if pool.find([bytes([page])])}
        (page,) = pool.take(1)
        assert known - {page} == {page for page in expected if pool.find([bytes([page])])}
        evicted.append(page)
    assert evicted == expected


def test_pages_without_content_go_before_cached_ones():
    pool = BlockPool(4, 4)
    cached, plain = pool.take(2), pool.take(2)
    for page in cached:
        pool.remember(page, bytes([page]))
    pool.give_back(cached)
    pool.give_back(plain)
    assert set(pool.take(2)) == set(plain)
    assert pool.cached == 2


def test_a_page_of_several_is_free_when_the_last_lets_go():
    pool = BlockPool(1, 4)
    pages = pool.take(1)
    pool.remember(1, b"x")
    pool.share(pool.find([b"x"]))
    pool.give_back(pages)
    assert pool.free == 0
    pool.give_back(pages)
    assert pool.free == 1
    assert pool.find([b"x"]) == [1]


@pytest.mark.parametrize("steps", [(1, 2), (2, 1)])
def test_the_last_step_of_all_holders_is_waited_for(steps):
    pool = BlockPool(1, 4)
    pages = pool.take(1)
    pool.remember(1, b"x")
    pool.share(pages)
    for step in steps:
        pool.give_back(pages, after=step)
    pool.release_up_to(1)
    assert (pool.free, pool.fenced) == (0, 1)
    pool.release_up_to(2)
    assert (pool.free, pool.fenced) == (1, 0)


def test_a_fenced_page_can_be_read_by_others_but_not_written():
    pool = BlockPool(1, 4)
    pages = pool.take(1)
    pool.remember(1, b"x")
    pool.give_back(pages, after=2)
    assert (pool.free, pool.fenced, pool.take(1)) == (0, 1, None)
    pool.share(pool.find([b"x"]))
    assert pool.fenced == 0
    pool.give_back(pages)  # whose reader was no part of step 2: the fence stays
    pool.release_up_to(1)
    assert (pool.free, pool.fenced) == (0, 1)
    pool.release_up_to(2)
    assert pool.take(1) == [1]


@given(tokens=st.integers(0, 10**6), page_size=st.integers(1, 512))
def test_pages_for_is_just_enough(tokens, page_size):
    pages = pages_for(tokens, page_size)
    assert pages * page_size >= tokens
    assert (pages - 1) * page_size < tokens
