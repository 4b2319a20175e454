"""Hashes of pages: equal for equal beginnings under one salt, and for nothing else."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from atomr_trio.engine.prefix_cache import PageHasher, PrefixIndex

HASHER = PageHasher(b"key")
pages = st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=2), min_size=1, max_size=3)
salts = st.sampled_from(["", "a", "b"])


def chain(hasher, salt, content):
    before, hashes = hasher.root(salt), []
    for page in content:
        before = hasher.page(before, page)
        hashes.append(before)
    return hashes


@given(one=pages, other=pages, salt=salts, other_salt=salts)
def test_hashes_are_equal_as_far_as_salt_and_beginning_are(one, other, salt, other_salt):
    hashes = chain(HASHER, salt, one), chain(HASHER, other_salt, other)
    for index, (left, right) in enumerate(zip(*hashes, strict=False), 1):
        assert (left == right) == (salt == other_salt and one[:index] == other[:index])
        assert len(left) == 16


@given(one=pages, salt=salts)
def test_another_key_gives_other_hashes(one, salt):
    first, second = chain(PageHasher(), salt, one), chain(PageHasher(), salt, one)
    assert not {*first} & {*second}
    assert chain(HASHER, salt, one) == chain(PageHasher(b"key"), salt, one)


def test_a_root_is_no_page():
    assert HASHER.root("") not in chain(HASHER, "", [[0, 0]])


def test_large_token_ids_are_told_apart():
    root = HASHER.root("")
    assert len({HASHER.page(root, [token]) for token in (0, 2**16, 2**31, 2**32 - 1)}) == 4


class Index(RuleBasedStateMachine):
    """Against two plain facts: which page was told to hold what, and who came first."""

    def __init__(self):
        super().__init__()
        self.index = PrefixIndex()
        self.model: dict[int, bytes] = {}

    @rule(page=st.integers(1, 5), content=st.integers(0, 5))
    def put(self, page, content):
        name = bytes([content])
        self.index.put(page, name)
        if page not in self.model and name not in self.model.values():
            self.model[page] = name

    @rule(page=st.integers(1, 5))
    def forget(self, page):
        self.index.forget(page)
        self.model.pop(page, None)

    @rule()
    def clear(self):
        self.index.clear()
        self.model.clear()

    @invariant()
    def finds_what_it_was_told(self):
        assert len(self.index) == len(self.model)
        assert {page for page in range(6) if page in self.index} == set(self.model)
        for page, name in self.model.items():
            assert self.index.find([name]) == [page]
            assert self.index.find([name, b"unknown", name]) == [page]
        assert self.index.find([b"unknown", *self.model.values()]) == []


TestIndex = Index.TestCase
